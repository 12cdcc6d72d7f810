//! The connection with the API server: how it is found, and what every request passes on its way.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, Request, Response};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, Layer, Service, ServiceBuilder};

use super::gate::Gate;
use super::limit::{Limited, TooLate};

const CONNECT: Duration = Duration::from_secs(10);
/// A connection whose other end has gone without a word is found out after some 30 s.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// The longest time that a server's `Retry-After` is obeyed.
const LONGEST_PATIENCE: Duration = Duration::from_secs(120);
/// Environment that the kubelet gives to every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("kubeconfig: `{path}` can't be used: {reason}")]
    Kubeconfig { path: String, reason: String },
    #[error("the cluster's API server can't be used: {0}")]
    Client(#[from] kube::Error),
}

/// Where the cluster's API server is.
#[derive(Debug)]
pub enum KubeConfig {
    /// Nowhere; why.
    Absent(String),
    At(Box<Config>),
}

impl KubeConfig {
    /// From a kubeconfig's current context, or else from the service account of the pod that we are in.
    ///
    /// # Errors
    ///
    /// The file can't be read or doesn't say enough.
    pub async fn find(kubeconfig: Option<&Path>) -> Result<Self, KubeError> {
        let Some(path) = kubeconfig else {
            if std::env::var_os(IN_CLUSTER).is_none() {
                let why = format!("not in a pod ({IN_CLUSTER} is not set), and no --kubeconfig is given");
                return Ok(Self::Absent(why));
            }
            return Ok(match Config::incluster() {
                Ok(config) => Self::At(Box::new(config)),
                Err(error) => Self::Absent(format!("no service account: {error}")),
            });
        };
        let invalid = |reason: String| KubeError::Kubeconfig {
            path: path.display().to_string(),
            reason,
        };
        let file = Kubeconfig::read_from(path).map_err(|e| invalid(with_sources(&e)))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let config = config.map_err(|e| invalid(with_sources(&e)))?;
        if let Some(proxy) = &config.proxy_url {
            return Err(invalid(format!("a proxy ({proxy}) is not supported")));
        }
        Ok(Self::At(Box::new(config)))
    }
}

/// An error with what is behind it.
pub(super) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Why a request failed, without what stands in the server's answer beside its message.
pub fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        error => with_sources(error),
    }
}

/// A client without retries of its own: who asks knows better when to ask again.
/// Every answer is there within `limit`; of a watch, its begin.
pub(super) fn client(
    config: &Config,
    gate: Arc<Gate>,
    requests: Requests,
    limit: Duration,
) -> Result<Client, KubeError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    let (idle, interval, retries) = KEEP_ALIVE;
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(retries));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let inner: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(Watching {
            gate,
            requests,
            limit,
        })
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(inner);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Verb, resource and code of a request.
pub type RequestKind = (&'static str, &'static str, String);

/// How many requests were made, by what they were and how they were answered.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<RequestKind, u64>>>);

impl Requests {
    pub fn counts(&self) -> BTreeMap<RequestKind, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, verb: &'static str, resource: &'static str, code: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((verb, resource, code)).or_default() += 1;
    }
}

/// Counts requests, notes what the server says about when to come back, and waits no longer than the limit.
#[derive(Clone)]
struct Watching {
    gate: Arc<Gate>,
    requests: Requests,
    limit: Duration,
}

impl<S> Layer<S> for Watching {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched {
            inner,
            watching: self.clone(),
        }
    }
}

struct Watched<S> {
    inner: S,
    watching: Watching,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Limited<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = kind(request.method(), request.uri().path(), request.uri().query());
        let Watching {
            gate,
            requests,
            limit,
        } = self.watching.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let end = Instant::now() + limit;
            let answer = match timeout_at(end, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(TooLate(limit).into()),
            };
            let code = match &answer {
                Ok(response) => {
                    if let Some(time) = patience(response) {
                        gate.wait(time);
                    }
                    response.status().as_u16().to_string()
                }
                Err(_) => "none".to_owned(),
            };
            requests.count(verb, resource, code);
            let end = (verb != "watch").then_some(end);
            answer.map(|answer| answer.map(|body| Limited::new(body, end, limit)))
        })
    }
}

/// Only overload asks for patience; a date is no answer that an API server gives.
fn patience<B>(response: &Response<B>) -> Option<Duration> {
    if !matches!(response.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PATIENCE))
}

/// Resources that the metrics tell apart.
const RESOURCES: [&str; 8] = [
    "clusternetworkfaults",
    "endpointslices",
    "events",
    "networkfaults",
    "nodes",
    "pods",
    "servicecidrs",
    "services",
];

/// A request's verb and resource, from closed sets.
fn kind(method: &Method, path: &str, query: Option<&str>) -> (&'static str, &'static str) {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match words.as_slice() {
        ["version"] => return ("get", "version"),
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let known = |plural: &&str| RESOURCES.iter().find(|known| **known == *plural);
    let resource = rest.first().and_then(known).copied().unwrap_or("other");
    let watches = query.is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"));
    let verb = match (method.as_str(), rest.len()) {
        ("GET", 1) if watches => "watch",
        ("GET", 1) => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::FutureExt;
    use http::{Method, Request, Response};
    use http_body::{Body as _, Frame};
    use kube::client::Body;
    use tokio::time::{Instant, sleep};
    use tower::{BoxError, Layer, Service, service_fn};

    use super::{Gate, Limited, Requests, TooLate, Watching, kind};
    use crate::targets::kube::BACKOFF;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A body of which nothing ever comes.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            std::task::Poll::Pending
        }
    }

    /// Asks a server that answers after `head`, and sends nothing then.
    async fn ask(head: Duration, uri: &str) -> Result<Response<Limited<Silent>>, BoxError> {
        let server = service_fn(move |_: Request<Body>| {
            Box::pin(async move {
                sleep(head).await;
                Ok::<_, Infallible>(Response::new(Silent))
            })
        });
        let watching = Watching {
            gate: Gate::new(BACKOFF).into(),
            requests: Requests::default(),
            limit: LIMIT,
        };
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        watching.layer(server).call(request).await
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_waited_for_for_ever() {
        let is_late = |error: BoxError| error.downcast_ref() == Some(&TooLate(LIMIT));
        for uri in ["/api/v1/pods", "/api/v1/pods?watch=true"] {
            let start = Instant::now();
            let error = ask(2 * LIMIT, uri).await.err().expect("it is late");
            assert!(is_late(error) && start.elapsed() == LIMIT, "{uri}");
        }

        // The head comes in time. A list has to be there as a whole; nothing may happen for long that a watch could tell.
        let head = LIMIT - Duration::from_secs(1);
        let start = Instant::now();
        let mut list = ask(head, "/api/v1/pods").await.expect("its head");
        let error = next(list.body_mut()).await.expect("an end").err();
        assert!(error.is_some_and(is_late) && start.elapsed() == LIMIT);
        let mut watch = ask(head, "/api/v1/pods?watch=true").await.expect("its head");
        sleep(20 * LIMIT).await;
        assert!(next(watch.body_mut()).now_or_never().is_none());
    }

    async fn next(body: &mut Limited<Silent>) -> Option<Result<Frame<&'static [u8]>, BoxError>> {
        let mut body = std::pin::Pin::new(body);
        std::future::poll_fn(move |context| body.as_mut().poll_frame(context)).await
    }

    #[test]
    fn requests_by_verb_and_resource() {
        let get = |path, query| kind(&Method::GET, path, query);
        assert_eq!(get("/version", None), ("get", "version"));
        assert_eq!(get("/api/v1/pods", Some("limit=500")), ("list", "pods"));
        let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        assert_eq!(get(slices, Some("&watch=true&x=y")), ("watch", "endpointslices"));
        assert_eq!(get("/api/v1/nodes/a", None), ("get", "nodes"));
        assert_eq!(get("/api/v1/namespaces/shop/secrets", None), ("list", "other"));
        let fault = "/apis/sabot.dev/v1alpha1/namespaces/shop/networkfaults/cut/status";
        assert_eq!(kind(&Method::PATCH, fault, None), ("patch", "networkfaults"));
        assert_eq!(
            kind(&Method::POST, "/api/v1/namespaces/a/events", None),
            ("create", "events")
        );
    }
}
