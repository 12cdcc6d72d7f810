//! Requests and their answers, a connection each.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{ExecPod, Shared, process};

/// Of a request's head.
const LONGEST: usize = 64 << 10;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((connection, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // A client that breaks its connection is the client's affair.
            let _ = answer(connection, &shared).await;
        });
    }
}

/// A request's path, its parameters and its headers, by their names in lower case.
struct Request {
    path: String,
    parameters: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
}

impl Request {
    async fn read(connection: &mut TcpStream) -> io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            head.push(connection.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let target = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameters = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decoded(value)))
            .collect();
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            path: path.to_owned(),
            parameters,
            headers: headers
                .map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        })
    }

    fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.parameters.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }
}

/// `%2F` and `+` of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let hex = others.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, length) = match (first, code) {
            (b'%', Some(code)) => (code, 2),
            (b'+', _) => (b' ', 0),
            (other, _) => (other, 0),
        };
        bytes.push(byte);
        rest = &others[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn answer(mut connection: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let request = Request::read(&mut connection).await?;
    let pods = format!("/api/v1/namespaces/{}/pods", shared.namespace);
    let Some(rest) = request.path.strip_prefix(&pods) else {
        // Other namespaces are there, and empty.
        let empty = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []});
        return send(connection, "200 OK", &empty).await;
    };
    if rest.is_empty() {
        return send(connection, "200 OK", &list(&request, shared)).await;
    }
    let name = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/exec"));
    let pod = name.and_then(|name| shared.pods().iter().find(|pod| pod.name == name).cloned());
    match pod {
        None => {
            let status = failure(404, "NotFound", &format!("{} not found", request.path));
            send(connection, "404 Not Found", &status).await
        }
        Some(pod) if pod.forbidden => {
            let message = format!(
                "pods \"{}\" is forbidden: User \"somebody\" cannot create resource \"pods/exec\"",
                pod.name
            );
            send(connection, "403 Forbidden", &failure(403, "Forbidden", &message)).await
        }
        Some(pod) => exec(connection, &request, pod, shared).await,
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "reason": reason, "message": message, "code": code,
    })
}

/// The pods that the label selector means, from where the client has come to.
fn list(request: &Request, shared: &Shared) -> Value {
    let selector = request.parameters("labelSelector").next().unwrap_or_default();
    let wanted: Vec<(&str, &str)> = selector
        .split(',')
        .filter_map(|part| part.split_once('='))
        .collect();
    let is_wanted = |pod: &&ExecPod| {
        let has = |(key, value): &(&str, &str)| pod.labels.get(*key).is_some_and(|has| has == value);
        wanted.iter().all(has)
    };
    let number = |name| {
        request
            .parameters(name)
            .next()
            .and_then(|text| text.parse::<usize>().ok())
    };
    let from = number("continue").unwrap_or(0);
    let size = number("limit").unwrap_or(usize::MAX).min(shared.page);
    let pods = shared.pods();
    let all: Vec<_> = pods.iter().filter(is_wanted).collect();
    let items = all
        .iter()
        .skip(from)
        .take(size)
        .map(|pod| pod.object(&shared.namespace));
    let items: Vec<_> = items.collect();
    let end = from + items.len();
    let metadata = if end < all.len() {
        json!({"resourceVersion": "7", "continue": end.to_string()})
    } else {
        json!({"resourceVersion": "7"})
    };
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}

async fn send(mut connection: TcpStream, status: &str, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}

/// Becomes a WebSocket, if the client speaks our version of the protocol, and runs the command behind it.
async fn exec(
    mut connection: TcpStream,
    request: &Request,
    pod: ExecPod,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let header = |name| request.headers.get(name).map_or("", String::as_str);
    let protocol = shared.protocol;
    let speaks = header("sec-websocket-protocol")
        .split(',')
        .any(|offered| offered.trim() == protocol.name());
    let key = header("sec-websocket-key");
    if key.is_empty() || !speaks {
        let status = failure(400, "BadRequest", "a WebSocket of our protocol is needed");
        return send(connection, "400 Bad Request", &status).await;
    }
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: {}\r\n\r\n",
        protocol.name()
    );
    connection.write_all(head.as_bytes()).await?;
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    let command: Vec<_> = request.parameters("command").map(str::to_owned).collect();
    process::run(socket, &pod, &command, shared).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            decoded("app.kubernetes.io%2Fname%3Dsabot%2Cx+y"),
            "app.kubernetes.io/name=sabot,x y"
        );
        assert_eq!(decoded("100%"), "100%");
    }
}
