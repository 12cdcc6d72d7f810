//! Settings of gRPC over TCP: `--listen`, `--tls-…`, and the tables `[tls]` and `[roles]` of the file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::settings::both;
use super::{ConfigError, invalid};

/// Where and for whom gRPC is served over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    pub address: SocketAddr,
    pub files: TlsFiles,
    pub roles: Roles,
}

/// PEM files; they are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The daemon's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities of the clients' certificates.
    pub client_authorities: PathBuf,
}

/// Who may do what, by the names in clients' certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// They may do everything.
    pub operators: BTreeSet<String>,
    /// They may look.
    pub viewers: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct TlsSettings {
    /// The daemon's certificate for --listen, a PEM file with those between it and its authority
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        env = "SABOT_TLS_CERT",
        value_name = "FILE"
    )]
    cert: Option<PathBuf>,

    /// The key of --tls-cert, a PEM file
    #[arg(id = "tls_key", long = "tls-key", env = "SABOT_TLS_KEY", value_name = "FILE")]
    key: Option<PathBuf>,

    /// The authorities of clients' certificates, a PEM file; nobody connects without a certificate of theirs
    #[arg(
        id = "tls_client_ca",
        long = "tls-client-ca",
        env = "SABOT_TLS_CLIENT_CA",
        value_name = "FILE"
    )]
    client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct RoleSettings {
    /// A name in clients' certificates (common or alternative) that may do everything; repeatable, in the environment
    /// separated by commas
    #[arg(
        id = "tls_operator",
        long = "tls-operator",
        env = "SABOT_TLS_OPERATOR",
        value_name = "NAME",
        value_delimiter = ','
    )]
    operators: Option<Vec<String>>,

    /// A name in clients' certificates that may look and change nothing; repeatable, in the environment separated by
    /// commas
    #[arg(
        id = "tls_viewer",
        long = "tls-viewer",
        env = "SABOT_TLS_VIEWER",
        value_name = "NAME",
        value_delimiter = ','
    )]
    viewers: Option<Vec<String>>,
}

impl TlsSettings {
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            cert: self.cert.or(lower.cert),
            key: self.key.or(lower.key),
            client_ca: self.client_ca.or(lower.client_ca),
        }
    }
}

impl RoleSettings {
    /// Names add up.
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            operators: both(self.operators, lower.operators),
            viewers: both(self.viewers, lower.viewers),
        }
    }

    fn complete(self) -> Result<Roles, ConfigError> {
        let roles = Roles {
            operators: self.operators.into_iter().flatten().collect(),
            viewers: self.viewers.into_iter().flatten().collect(),
        };
        for (setting, names) in [("tls-operator", &roles.operators), ("tls-viewer", &roles.viewers)] {
            if names.contains("") {
                return Err(invalid(setting, "", "a name is needed"));
            }
        }
        if let Some(name) = roles.operators.intersection(&roles.viewers).next() {
            let allowed = "it is an operator's name too; a name has one role";
            return Err(invalid("tls-viewer", name, allowed));
        }
        Ok(roles)
    }
}

/// What is served over TCP; nothing is, without mutual TLS.
pub(super) fn complete(
    listen: Option<SocketAddr>,
    tls: TlsSettings,
    roles: RoleSettings,
) -> Result<Option<RemoteConfig>, ConfigError> {
    let roles = roles.complete()?;
    let Some(address) = listen else {
        return unused(&tls, &roles).map_or(Ok(None), Err);
    };
    let (Some(certificate), Some(key), Some(client_authorities)) =
        (tls.cert.clone(), tls.key.clone(), tls.client_ca.clone())
    else {
        let missing: Vec<&str> = tls
            .named()
            .into_iter()
            .filter(|(_, file)| file.is_none())
            .map(|(name, _)| name)
            .collect();
        let allowed = format!(
            "TCP is served with mutual TLS only; missing: --{}",
            missing.join(", --")
        );
        return Err(invalid("listen", address, allowed));
    };
    if roles == Roles::default() {
        let allowed = "nobody could do anything there: --tls-operator or --tls-viewer names who may";
        return Err(invalid("listen", address, allowed));
    }
    Ok(Some(RemoteConfig {
        address,
        files: TlsFiles {
            certificate,
            key,
            client_authorities,
        },
        roles,
    }))
}

impl TlsSettings {
    fn named(&self) -> [(&'static str, Option<&PathBuf>); 3] {
        [
            ("tls-cert", self.cert.as_ref()),
            ("tls-key", self.key.as_ref()),
            ("tls-client-ca", self.client_ca.as_ref()),
        ]
    }
}

/// A setting that means nothing without `--listen`: somebody believes that it does.
fn unused(tls: &TlsSettings, roles: &Roles) -> Option<ConfigError> {
    let why = "it has no effect without --listen";
    let files = tls.named();
    let file = files.into_iter().find_map(|(name, file)| Some((name, file?)));
    if let Some((name, file)) = file {
        return Some(invalid(name, file.display(), why));
    }
    let role = |setting, names: &BTreeSet<String>| names.first().map(|name| invalid(setting, name, why));
    role("tls-operator", &roles.operators).or_else(|| role("tls-viewer", &roles.viewers))
}
