//! gRPC over TCP: mutual TLS, whose files are read again when they change.
//!
//! A new certificate counts for connections from then on; those that are there go on. Files that don't fit together, as
//! while they are being replaced, leave the former ones in force until they do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;

use super::caller::{Caller, Connection};
use super::roles::Role;
use crate::config::{RemoteConfig, Roles, TlsFiles};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For a client to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; more clients wait.
const HANDSHAKES: usize = 64;
/// Between failures to accept a connection: out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What HTTP/2 is called in a handshake.
const HTTP2: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("listening on {address} (see --listen): {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("reading the {what} in {}: {source}", path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    #[error("the certificate in {} and the key in {} are no pair: {source}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("an authority in {} can't be used: {source}", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("the authorities in {} can't be used: {source}", path.display())]
    Verifier {
        path: PathBuf,
        source: VerifierBuilderError,
    },
}

/// A listener for clients with certificates.
#[derive(Debug)]
pub struct Remote {
    listener: TcpListener,
    keys: Arc<Keys>,
    roles: Arc<Roles>,
}

/// Listens, and reads the certificates.
///
/// # Errors
/// The address is taken, or a file is missing or not what it should be.
pub async fn bind_remote(config: &RemoteConfig) -> Result<Remote, TlsError> {
    let keys = Arc::new(Keys::read(config.files.clone())?);
    let address = config.address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| TlsError::Listen { address, source })?;
    Ok(Remote {
        listener,
        keys,
        roles: Arc::new(config.roles.clone()),
    })
}

impl Remote {
    /// Connections whose clients have shown a certificate, as long as somebody receives them.
    pub(super) fn connections(self) -> mpsc::Receiver<io::Result<Connection>> {
        let (sender, receiver) = mpsc::channel(HANDSHAKES);
        tokio::spawn(keep_current(Arc::clone(&self.keys), sender.clone()));
        tokio::spawn(self.accept(sender));
        receiver
    }

    async fn accept(self, sender: mpsc::Sender<io::Result<Connection>>) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // It is never closed.
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (keys, roles, sender) = (self.keys.current(), Arc::clone(&self.roles), sender.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE, shake_hands(stream, address, keys, &roles)).await {
                    // Without a receiver the daemon ends.
                    Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::info!(%address, %error, "a client was turned away"),
                    Err(_) => tracing::info!(%address, "a client didn't show a certificate in time"),
                }
                drop(permit);
            });
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    keys: Arc<ServerConfig>,
    roles: &Roles,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(keys).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    // The verifier let nobody in without one.
    let certificate = certificates.and_then(|all| all.first());
    let names = certificate
        .map(names)
        .transpose()
        .map_err(io::Error::other)?
        .unwrap_or_default();
    let caller = caller(&names, roles, address);
    Ok(Connection::tls(stream, caller))
}

/// The common names of a certificate's subject, then its alternative names.
fn names(
    certificate: &CertificateDer<'_>,
) -> Result<Vec<String>, x509_parser::nom::Err<x509_parser::error::X509Error>> {
    use x509_parser::extensions::GeneralName;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    let common = certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok());
    // One that can't be read gives no names.
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative
        .into_iter()
        .flat_map(|extension| &extension.value.general_names);
    let alternative = alternative.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    });
    Ok(common.chain(alternative).map(str::to_owned).collect())
}

fn caller(names: &[String], roles: &Roles, address: SocketAddr) -> Caller {
    let among = |wanted: &BTreeSet<String>| names.iter().find(|name| wanted.contains(*name)).cloned();
    let found = among(&roles.operators)
        .map(|name| (name, Role::Operator))
        .or_else(|| among(&roles.viewers).map(|name| (name, Role::Viewer)));
    match found {
        Some((name, role)) => Caller::Certificate {
            name,
            role: Some(role),
            address,
        },
        None => Caller::Certificate {
            name: names.first().cloned().unwrap_or_default(),
            role: None,
            address,
        },
    }
}

/// The certificates in force.
#[derive(Debug)]
struct Keys {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were read.
    read: RwLock<Stamps>,
}

type Stamps = [Option<Stamp>; 3];

/// Tells a file from a former one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    changed: (i64, i64),
    size: u64,
}

impl Keys {
    fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let config = server_config(&files)?;
        Ok(Self {
            files,
            current: RwLock::new(Arc::new(config)),
            read: RwLock::new(stamps),
        })
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads files that have changed since they were read last; blocks for a moment.
    fn look_again(&self) {
        // Before they are read: what changes meanwhile is then seen the next time.
        let stamps = stamps(&self.files);
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        if *read == stamps {
            return;
        }
        *read = stamps;
        match server_config(&self.files) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!("the certificates for --listen were read again");
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificates for --listen can't be used; the former ones stay");
            }
        }
    }
}

/// Looks at the files until nobody receives connections any more.
async fn keep_current(keys: Arc<Keys>, sender: mpsc::Sender<io::Result<Connection>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = ticks.tick() => {}
        }
        let keys = Arc::clone(&keys);
        if let Err(error) = tokio::task::spawn_blocking(move || keys.look_again()).await {
            tracing::error!(%error, "looking at the certificates failed");
        }
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            file: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.len(),
        })
    };
    [&files.certificate, &files.key, &files.client_authorities].map(|path| stamp(path))
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = certificates("certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        what: "key",
        path: files.key.clone(),
        source,
    })?;
    let authorities = &files.client_authorities;
    let mut roots = RootCertStore::empty();
    for authority in self::certificates("clients' authorities", authorities)? {
        roots.add(authority).map_err(|source| TlsError::Authority {
            path: authorities.clone(),
            source,
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier {
            path: authorities.clone(),
            source,
        })?;
    let pair = |source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(read)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(certificates)
}
