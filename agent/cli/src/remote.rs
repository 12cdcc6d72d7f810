//! The way to a daemon of another machine: TCP with mutual TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CliError;

/// A daemon of another machine.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// A sabotd that serves TCP (its --listen), instead of the one of this node; needs --tls-ca, --tls-cert and --tls-key.
    #[arg(long, global = true, env = "SABOT_SERVER", value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// The authorities of the server's certificate, a PEM file.
    #[arg(long, global = true, env = "SABOT_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Your certificate, a PEM file; its name says what you may do.
    #[arg(long, global = true, env = "SABOT_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of your certificate, a PEM file.
    #[arg(long, global = true, env = "SABOT_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

/// What is needed to connect, read and checked.
#[derive(Clone)]
pub(crate) struct Remote {
    /// `HOST:PORT`.
    server: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl RemoteArgs {
    /// `None` where the daemon of this node is meant.
    pub(crate) fn read(&self) -> Result<Option<Remote>, CliError> {
        let Some(server) = self.server.clone() else {
            return Ok(None);
        };
        let needed = |flag: &str, file: &Option<PathBuf>| {
            let missing = || CliError::Usage(format!("--server {server} needs --{flag} FILE"));
            file.clone().ok_or_else(missing)
        };
        let authorities = needed("tls-ca", &self.tls_ca)?;
        let certificate = needed("tls-cert", &self.tls_cert)?;
        let key = needed("tls-key", &self.tls_key)?;
        let name = server_name(&server)?;
        let config = client_config(&authorities, &certificate, &key)?;
        Ok(Some(Remote {
            server,
            name,
            connector: TlsConnector::from(Arc::new(config)),
        }))
    }
}

impl Remote {
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.server).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn server_name(server: &str) -> Result<ServerName<'static>, CliError> {
    let host = server
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    host.and_then(|host| ServerName::try_from(host).ok())
        .ok_or_else(|| {
            CliError::Usage(format!(
                "--server: `{server}` given; allowed: HOST:PORT, as `node-a:9465` or `[fd00::1]:9465`"
            ))
        })
}

fn client_config(authorities: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig, CliError> {
    let unusable = |path: &Path, why: &dyn std::fmt::Display| {
        CliError::Failed(format!("{} can't be used: {why}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities)? {
        roots
            .add(authority)
            .map_err(|error| unusable(authorities, &error))?;
    }
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, &error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)
        .map_err(|error| unusable(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unreadable(path, error))?;
    if certificates.is_empty() {
        return Err(CliError::Failed(format!("{} has no certificate", path.display())));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, error: pem::Error) -> CliError {
    let source = match error {
        pem::Error::Io(source) => source,
        other => io::Error::other(other),
    };
    CliError::Read {
        path: path.to_owned(),
        source,
    }
}
