//! The quick forms of the command line: targets, peers, ports and percents in one word each.

mod amounts;
mod port;
mod selector;

use std::fmt;
use std::str::FromStr;

use crate::spec::{LabelSelector, Peer, PeerPods, PortRef, ServiceRef, Target, TargetPods, TargetService};
use crate::validate::names;

pub use amounts::{
    BurstForm, BytesForm, DscpForm, GilbertElliottForm, LengthForm, OffsetForm, PercentForm, PulseForm,
    RampForm, RateForm,
};
pub use port::PortForm;
pub use selector::{format_selector, parse_selector};

/// Where a bare name of a network namespace lies, as for `ip netns`.
const NETNS_DIRECTORY: &str = "/run/netns";
const TARGET_FORMS: &str = "pod:NS/NAME, pods:NS/LABELSELECTOR, service:NS/NAME, node:NAME, interface:NAME, netns:PATH or \
     netns:NAME";
const PEER_FORMS: &str = "pod:NS/NAME, pods:NS/LABELSELECTOR, service:NS/NAME[:PORT], node:NAME, ip:ADDRESS, \
     cidr:NETWORK[,except=NETWORK]…, host:NAME";

/// A word that isn't one of the forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{given}`: {reason}; allowed: {allowed}")]
pub struct FormError {
    /// What it was to be: `target`, `peer`, `port`, `percent` and so on.
    pub what: &'static str,
    pub given: String,
    pub reason: String,
    pub allowed: String,
}

impl FormError {
    fn new(what: &'static str, given: &str, reason: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            what,
            given: given.to_owned(),
            reason: reason.into(),
            allowed: allowed.into(),
        }
    }
}

/// `pod:shop/web-0`, `pods:shop/app=web`, `service:shop/payments`, `node:worker-1`, `interface:eth0`,
/// `netns:/run/netns/web`, `netns:web`.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetForm(pub Target);

/// `pod:shop/web-0`, `pods:shop/app=web`, `service:shop/payments:https`, `node:worker-1`, `ip:10.0.0.1`,
/// `cidr:10.0.0.0/8,except=10.1.0.0/16`, `host:api.example.com`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerForm(pub Peer);

/// Which pods a form names.
struct PodsForm {
    namespace: String,
    name: Option<String>,
    selector: Option<LabelSelector>,
}

impl FromStr for TargetForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let error = |reason: String| FormError::new("target", text, reason, TARGET_FORMS);
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| error("it doesn't say what it is".to_owned()))?;
        let mut target = Target::default();
        match kind {
            "pod" | "pods" => {
                let form = pods_form(kind, rest).map_err(error)?;
                target.pods = Some(TargetPods {
                    namespace: Some(form.namespace),
                    name: form.name,
                    selector: form.selector,
                    pick: None,
                });
            }
            "interface" if names::is_device(rest) => target.interface = Some(rest.to_owned()),
            "interface" => return Err(error(format!("`{rest}` is not {}", names::DEVICE_RULE))),
            "netns" => target.netns = Some(netns(rest).map_err(error)?),
            "service" => {
                let (namespace, name) = service(rest).map_err(error)?;
                target.service = Some(TargetService {
                    namespace: Some(namespace),
                    name,
                    pick: None,
                });
            }
            "node" => target.node = Some(node(rest).map_err(error)?),
            _ => return Err(error(format!("`{kind}:` is not known"))),
        }
        Ok(Self(target))
    }
}

impl FromStr for PeerForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let error = |reason: String| FormError::new("peer", text, reason, PEER_FORMS);
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| error("it doesn't say what it is".to_owned()))?;
        let mut peer = Peer::default();
        match kind {
            "pod" | "pods" => {
                let form = pods_form(kind, rest).map_err(error)?;
                peer.pods = Some(PeerPods {
                    namespace: Some(form.namespace),
                    name: form.name,
                    selector: form.selector,
                });
            }
            "ip" if rest.parse::<std::net::IpAddr>().is_ok() => peer.ip = Some(rest.to_owned()),
            "ip" => return Err(error(format!("`{rest}` is not an IPv4 or IPv6 address"))),
            "cidr" => (peer.cidr, peer.except) = cidr(rest).map_err(error)?,
            "host" => peer.host = Some(host(rest).map_err(error)?),
            "service" => {
                let (rest, port) = match rest.split_once(':') {
                    Some((rest, port)) => (rest, Some(service_port(port).map_err(error)?)),
                    None => (rest, None),
                };
                let (namespace, name) = service(rest).map_err(error)?;
                peer.service = Some(ServiceRef {
                    namespace: Some(namespace),
                    name,
                    port,
                });
            }
            "node" => peer.node = Some(node(rest).map_err(error)?),
            _ => return Err(error(format!("`{kind}:` is not known"))),
        }
        Ok(Self(peer))
    }
}

/// The namespace and the name.
fn service(rest: &str) -> Result<(String, String), String> {
    let (namespace, name) = in_namespace(rest)?;
    if !names::is_label(name) {
        return Err(format!(
            "the Service's name `{name}` is not {}",
            names::LABEL_RULE
        ));
    }
    Ok((namespace.to_owned(), name.to_owned()))
}

fn service_port(text: &str) -> Result<PortRef, String> {
    match text.parse::<u16>() {
        Ok(number) if number > 0 => Ok(PortRef::Number(number.into())),
        Err(_) if names::is_label(text) && !text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(PortRef::Name(text.to_owned()))
        }
        _ => Err(format!(
            "`{text}` is neither a port from 1 to 65535 nor a port's name"
        )),
    }
}

fn node(rest: &str) -> Result<String, String> {
    if names::is_subdomain(rest) {
        Ok(rest.to_owned())
    } else {
        Err(format!(
            "the node's name `{rest}` is not {}",
            names::SUBDOMAIN_RULE
        ))
    }
}

fn pods_form(kind: &str, rest: &str) -> Result<PodsForm, String> {
    let one = kind == "pod";
    let (namespace, which) = in_namespace(rest)?;
    let namespace = namespace.to_owned();
    if !one {
        let selector = parse_selector(which).map_err(|e| e.reason)?;
        return Ok(PodsForm {
            namespace,
            name: None,
            selector: Some(selector),
        });
    }
    if !names::is_subdomain(which) {
        return Err(format!(
            "the pod's name `{which}` is not {}",
            names::SUBDOMAIN_RULE
        ));
    }
    Ok(PodsForm {
        namespace,
        name: Some(which.to_owned()),
        selector: None,
    })
}

/// The namespace, and what stands behind it.
fn in_namespace(rest: &str) -> Result<(&str, &str), String> {
    let (namespace, which) = rest
        .split_once('/')
        .ok_or_else(|| "the namespace is missing: it stands before a '/'".to_owned())?;
    if names::is_label(namespace) {
        Ok((namespace, which))
    } else {
        Err(format!(
            "the namespace `{namespace}` is not {}",
            names::LABEL_RULE
        ))
    }
}

fn netns(rest: &str) -> Result<String, String> {
    match rest {
        "" | "." | ".." => Err("the namespace's path or name is missing".to_owned()),
        path if path.starts_with('/') => Ok(path.to_owned()),
        name if name.contains('/') => Err(format!("`{name}` is neither an absolute path nor a bare name")),
        name => Ok(format!("{NETNS_DIRECTORY}/{name}")),
    }
}

fn host(rest: &str) -> Result<String, String> {
    let name = rest.strip_suffix('.').unwrap_or(rest).to_ascii_lowercase();
    if rest.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("`{rest}` is an address, which is given as ip:{rest}"));
    }
    if !names::is_host(&name) {
        return Err(format!("`{rest}` is not {}", names::HOST_RULE));
    }
    Ok(rest.to_owned())
}

fn cidr(rest: &str) -> Result<(Option<String>, Vec<String>), String> {
    let mut parts = rest.split(',');
    let network = |text: &str| match text.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is not a network as 10.20.0.0/16 or fd00::/64")),
    };
    let net = network(parts.next().unwrap_or_default())?;
    let mut except = Vec::new();
    for part in parts {
        let text = part
            .strip_prefix("except=")
            .ok_or_else(|| format!("`{part}` after the network is not except=NETWORK"))?;
        except.push(network(text)?);
    }
    Ok((Some(net), except))
}

/// The form that reads back as the same target; a pick has no quick form and is left out.
impl fmt::Display for TargetForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target {
            pods,
            netns,
            interface,
            service,
            node,
        } = &self.0;
        match (pods, netns, interface, service, node) {
            (Some(pods), ..) => write_pods(f, &pods.namespace, &pods.name, &pods.selector),
            (_, Some(path), ..) => write!(f, "netns:{path}"),
            (_, _, Some(name), ..) => write!(f, "interface:{name}"),
            (.., Some(service), _) => write_service(f, &service.namespace, &service.name),
            (.., Some(node)) => write!(f, "node:{node}"),
            (None, None, None, None, None) => Ok(()),
        }
    }
}

impl fmt::Display for PeerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer {
            ip,
            cidr,
            except,
            pods,
            host,
            service,
            node,
        } = &self.0;
        match (ip, cidr, pods, host, service, node) {
            (Some(ip), ..) => write!(f, "ip:{ip}"),
            (_, Some(cidr), ..) => {
                write!(f, "cidr:{cidr}")?;
                except.iter().try_for_each(|net| write!(f, ",except={net}"))
            }
            (_, _, Some(pods), ..) => write_pods(f, &pods.namespace, &pods.name, &pods.selector),
            (_, _, _, Some(host), ..) => write!(f, "host:{host}"),
            (.., Some(service), _) => {
                write_service(f, &service.namespace, &service.name)?;
                match &service.port {
                    Some(PortRef::Number(port)) => write!(f, ":{port}"),
                    Some(PortRef::Name(port)) => write!(f, ":{port}"),
                    None => Ok(()),
                }
            }
            (.., Some(node)) => write!(f, "node:{node}"),
            (None, None, None, None, None, None) => Ok(()),
        }
    }
}

fn write_service(f: &mut fmt::Formatter<'_>, namespace: &Option<String>, name: &str) -> fmt::Result {
    write!(f, "service:{}/{name}", namespace.as_deref().unwrap_or_default())
}

fn write_pods(
    f: &mut fmt::Formatter<'_>,
    namespace: &Option<String>,
    name: &Option<String>,
    selector: &Option<LabelSelector>,
) -> fmt::Result {
    let namespace = namespace.as_deref().unwrap_or_default();
    match (name, selector) {
        (Some(name), _) => write!(f, "pod:{namespace}/{name}"),
        (None, Some(selector)) => write!(f, "pods:{namespace}/{}", format_selector(selector)),
        (None, None) => write!(f, "pods:{namespace}/*"),
    }
}
