//! The HTTP endpoint: metrics, health, readiness.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;

use super::{Format, Metrics};

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Named conditions that must all hold.
#[derive(Default)]
pub struct Probe {
    checks: Vec<(&'static str, Check)>,
}

impl Probe {
    /// Adds a condition; its error says, for people, why it doesn't hold.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((name, Box::new(check)));
        self
    }

    /// The conditions that don't hold now, and why.
    pub fn failures(&self) -> Vec<String> {
        self.checks
            .iter()
            .filter_map(|(name, check)| check().err().map(|reason| format!("{name}: {reason}")))
            .collect()
    }
}

/// What the endpoint shows.
pub struct HttpState {
    pub metrics: Metrics,
    /// Whether the daemon's loops are alive; restarting it may help where they are not.
    pub live: Probe,
    /// Whether faults can be applied now.
    pub ready: Probe,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown` resolves.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(
    listener: impl Listener<Addr: Debug>,
    state: Arc<HttpState>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(state);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

async fn metrics(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Response {
    // Several Accept headers mean the same as one list.
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let format = Format::negotiate(&accept.join(","));
    match state.metrics.render(format).await {
        Ok(body) => ([(CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be encoded");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics can't be encoded\n",
            )
                .into_response()
        }
    }
}

async fn health(State(state): State<Arc<HttpState>>) -> Response {
    answer("alive", "not alive", &state.live)
}

async fn readiness(State(state): State<Arc<HttpState>>) -> Response {
    answer("ready", "not ready", &state.ready)
}

fn answer(good: &str, bad: &str, probe: &Probe) -> Response {
    let failures = probe.failures();
    if failures.is_empty() {
        format!("{good}\n").into_response()
    } else {
        let body = format!("{bad}\n{}\n", failures.join("\n"));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}
