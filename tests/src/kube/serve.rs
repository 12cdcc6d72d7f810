//! HTTP: from a request to what the store says, by way of the script.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream::once;
use serde_json::{Value, json};

use super::Core;
use super::resources::{Place, RESOURCES, Verb};
use super::script::{Effect, Recorded};
use super::select::Selector;
use super::store::{Key, Scope};
use super::watch::event;

const LARGEST_BODY: usize = 4 << 20;
/// Watches that don't say how long they want to last.
const WATCH_TIMEOUT: u64 = 3600;

pub(super) type Shared = Arc<Mutex<Core>>;

/// Whoever panicked while it held the lock has failed its test already.
pub(super) fn lock(shared: &Shared) -> MutexGuard<'_, Core> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request for a resource, read.
struct Call {
    place: Place,
    query: BTreeMap<String, String>,
    body: Value,
    applies: bool,
}

impl Call {
    fn is_set(&self, parameter: &str) -> bool {
        matches!(self.query.get(parameter).map(String::as_str), Some("true" | "1"))
    }

    fn text(&self, parameter: &str) -> &str {
        self.query.get(parameter).map_or("", String::as_str)
    }

    fn key(&self) -> Key {
        (
            self.place.resource.plural,
            self.place.namespace.clone().unwrap_or_default(),
            self.place.name.clone().unwrap_or_default(),
        )
    }

    fn scope(&self) -> Result<Scope, Refusal> {
        let selector = |name: &str| {
            let text = self.text(name);
            Selector::parse(text).ok_or_else(|| Refusal::bad_request(&format!("{name}: `{text}`")))
        };
        Ok(Scope {
            plural: self.place.resource.plural,
            namespace: self.place.namespace.clone(),
            labels: selector("labelSelector")?,
            fields: selector("fieldSelector")?,
        })
    }
}

/// A `Status` with its code.
struct Refusal(u16, Value);

impl Refusal {
    fn new(code: u16, reason: &str, message: &str) -> Self {
        Self(code, status(code, reason, message))
    }

    fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message)
    }

    fn not_found(key: &Key) -> Self {
        Self::new(404, "NotFound", &format!("{} \"{}\" not found", key.0, key.2))
    }
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

pub(super) async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if let Some(answer) = discovery(&lock(&shared), head.uri.path()) {
        return document(200, &answer);
    }
    let query = match Query::<BTreeMap<String, String>>::try_from_uri(&head.uri) {
        Ok(Query(query)) => query,
        Err(error) => return refused(&Refusal::bad_request(&error.to_string())),
    };
    let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let content = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let watches = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
    let place = Place::parse(head.uri.path());
    let verb = place.as_ref().and_then(|place| place.verb(&head.method, watches));
    let (Some(place), Some(verb)) = (place, verb) else {
        return unknown(&head.uri);
    };
    let call = Call {
        place,
        query,
        body: serde_norway::from_slice(&body).unwrap_or_default(),
        applies: content.is_some_and(|kind| kind.starts_with("application/apply-patch")),
    };
    let (record, effects) = {
        let mut core = lock(&shared);
        let record = core.script.record(Recorded {
            at: Instant::now(),
            verb,
            resource: call.place.resource.plural.to_owned(),
            namespace: call.place.namespace.clone(),
            name: call.place.name.clone(),
            subresource: call.place.subresource.clone(),
            query: call.query.clone(),
            body: call.body.clone(),
            code: 0,
        });
        (record, core.script.effects(&call.place, verb))
    };
    let response = match perform(&effects).await {
        Some(response) => response,
        None => answer(&mut lock(&shared), &call, verb).unwrap_or_else(|refusal| refused(&refusal)),
    };
    lock(&shared).script.answered(record, response.status().as_u16());
    response
}

fn unknown(uri: &Uri) -> Response {
    let message = format!("the server could not find the requested resource: {uri}");
    refused(&Refusal::new(404, "NotFound", &message))
}

/// What the script says instead of the server.
async fn perform(effects: &[Effect]) -> Option<Response> {
    for effect in effects {
        match *effect {
            Effect::Delay(time) => tokio::time::sleep(time).await,
            Effect::Hang => pending().await,
            Effect::BreakOff => {
                let broken = once(async { Err::<Bytes, _>(io::Error::other("broken off")) });
                return Some(Body::from_stream(broken).into_response());
            }
            Effect::Refuse { code, retry_after } => {
                let mut response = refused(&Refusal::new(code, "Scripted", "the test's script says so"));
                if let Some(seconds) = retry_after {
                    response
                        .headers_mut()
                        .insert(RETRY_AFTER, HeaderValue::from(seconds));
                }
                return Some(response);
            }
        }
    }
    None
}

fn answer(core: &mut Core, call: &Call, verb: Verb) -> Result<Response, Refusal> {
    if core.missing.contains(call.place.resource.plural) {
        return Err(Refusal::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ));
    }
    match verb {
        Verb::Get => {
            let key = call.key();
            let object = core.store.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
            Ok(raw(200, object.json.clone()))
        }
        Verb::List => list(core, call),
        Verb::Watch => watch(core, call),
        Verb::Create => create(core, call),
        Verb::Patch => patch(core, call),
        Verb::Delete => {
            let key = call.key();
            let last = core.delete(&key).ok_or_else(|| Refusal::not_found(&key))?;
            Ok(raw(200, last.json.clone()))
        }
    }
}

/// A page of a list. Its `continue` is the version of the first page and the last key.
fn list(core: &Core, call: &Call) -> Result<Response, Refusal> {
    let scope = call.scope()?;
    let limit: usize = call.text("limit").parse().unwrap_or(0);
    let limit = if limit == 0 { usize::MAX } else { limit };
    let (version, after) = match call.text("continue").split_once(' ') {
        None => (core.store.version(), None),
        Some((version, key)) => {
            let version: u64 = version.parse().map_err(|_| Refusal::bad_request("continue"))?;
            if core.store.since(version).is_none() {
                return Err(Refusal::new(
                    410,
                    "Expired",
                    "the provided continue parameter is too old",
                ));
            }
            (version, Some(key.to_owned()))
        }
    };
    let path = |key: &Key| format!("{}/{}", key.1, key.2);
    let mut items = core
        .store
        .list(&scope)
        .skip_while(|object| after.as_ref().is_some_and(|after| path(&object.key) <= *after));
    let page: Vec<_> = items.by_ref().take(limit).collect();
    let more = items.next().is_some();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some(last)) = (more, page.last()) {
        metadata["continue"] = json!(format!("{version} {}", path(&last.key)));
    }
    let resource = call.place.resource;
    let (api, kind) = (resource.api_version(), resource.kind);
    let mut body =
        format!("{{\"apiVersion\":\"{api}\",\"kind\":\"{kind}List\",\"metadata\":{metadata},\"items\":[")
            .into_bytes();
    for (index, object) in page.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&object.json);
    }
    body.extend_from_slice(b"]}");
    Ok(raw(200, body.into()))
}

fn watch(core: &mut Core, call: &Call) -> Result<Response, Refusal> {
    let scope = call.scope()?;
    let resource = call.place.resource;
    let missed = match call.text("resourceVersion") {
        "" | "0" => core
            .store
            .list(&scope)
            .map(|object| event("ADDED", &object.json))
            .collect(),
        text => {
            let version = text
                .parse()
                .map_err(|_| Refusal::bad_request("resourceVersion"))?;
            match core.store.since(version) {
                Some(changes) => changes
                    .filter_map(|change| scope.sees(change))
                    .map(|(kind, json)| event(kind, &json))
                    .collect(),
                None => {
                    let status = status(410, "Expired", "too old resource version");
                    return Ok(raw(200, event("ERROR", status.to_string().as_bytes())));
                }
            }
        }
    };
    let seconds = call.text("timeoutSeconds").parse().unwrap_or(WATCH_TIMEOUT);
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let bookmarks = call.is_set("allowWatchBookmarks");
    let stream = core.watches.open(resource, scope, bookmarks, missed, until);
    let json = [(CONTENT_TYPE, "application/json")];
    Ok((json, Body::from_stream(stream)).into_response())
}

fn create(core: &mut Core, call: &Call) -> Result<Response, Refusal> {
    let mut value = call.body.clone();
    if let Some(namespace) = &call.place.namespace {
        value["metadata"]["namespace"] = json!(namespace);
    }
    if value["metadata"]["name"].is_null() {
        let prefix = value["metadata"]["generateName"].as_str().unwrap_or_default();
        value["metadata"]["name"] = json!(format!("{prefix}{:05}", core.store.version()));
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let key = (
        call.place.resource.plural,
        call.place.namespace.clone().unwrap_or_default(),
        name,
    );
    if core.store.get(&key).is_some() {
        let message = format!("{} \"{}\" already exists", key.0, key.2);
        return Err(Refusal::new(409, "AlreadyExists", &message));
    }
    core.replace(call.place.resource, value);
    let object = core.store.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
    Ok(raw(201, object.json.clone()))
}

fn patch(core: &mut Core, call: &Call) -> Result<Response, Refusal> {
    let key = call.key();
    let resource = call.place.resource;
    let exists = core.store.get(&key).is_some();
    if !exists && (!call.applies || call.place.subresource.is_some()) {
        return Err(Refusal::not_found(&key));
    }
    let mut managed = core.managed.get(&key).cloned().unwrap_or_default();
    if call.applies {
        let mut fields = call.body.clone();
        (fields["metadata"]["name"], fields["metadata"]["namespace"]) = (json!(key.2), json!(key.1));
        let manager = call.text("fieldManager");
        if manager.is_empty() {
            return Err(Refusal::bad_request("fieldManager is required for apply patch"));
        }
        let subresource = call.place.subresource.as_deref();
        let force = call.is_set("force");
        let applied = managed.apply(manager, subresource, &fields, resource.has_status, force);
        applied.map_err(|other| {
            Refusal::new(
                409,
                "Conflict",
                &format!("Apply failed with a conflict with \"{other}\""),
            )
        })?;
    } else {
        managed.patch(&call.body);
    }
    core.write(resource, &key, managed);
    let object = core.store.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
    Ok(raw(if exists { 200 } else { 201 }, object.json.clone()))
}

/// What clients ask to learn what there is.
fn discovery(core: &Core, path: &str) -> Option<Value> {
    if path == "/version" {
        return Some(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.1", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2025-05-15T00:00:00Z", "goVersion": "go1.24.2", "compiler": "gc",
            "platform": "linux/amd64",
        }));
    }
    let version = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/api/"))?;
    let resources = RESOURCES
        .iter()
        .filter(|r| r.api_version() == version && !core.missing.contains(r.plural));
    let list: Vec<Value> = resources
        .map(|r| {
            json!({
                "name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced,
                "kind": r.kind, "verbs": ["create", "delete", "get", "list", "patch", "watch"],
            })
        })
        .collect();
    let answer =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list});
    (!list.is_empty()).then_some(answer)
}

fn document(code: u16, value: &Value) -> Response {
    raw(code, value.to_string().into())
}

fn refused(refusal: &Refusal) -> Response {
    document(refusal.0, &refusal.1)
}

fn raw(code: u16, json: Bytes) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [(CONTENT_TYPE, "application/json")], json).into_response()
}
