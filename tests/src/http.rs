//! HTTP requests, each on a connection of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::NetnsRef;

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// What an HTTP server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    /// Empty where it named none.
    pub content_type: String,
    pub body: String,
}

/// Asks for `path` from inside a namespace, or from ours.
///
/// # Errors
///
/// Nobody answers, or not in HTTP.
pub fn get(netns: Option<&NetnsRef>, address: SocketAddr, path: &str, accept: &str) -> Result<HttpAnswer> {
    let ask = || request(address, path, accept);
    match netns {
        Some(netns) => netns.run(ask),
        None => ask(),
    }
}

/// An address on which nobody listens yet.
///
/// # Errors
///
/// No port is free.
pub(crate) fn free_address(netns: Option<&NetnsRef>) -> Result<SocketAddr> {
    let find = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    match netns {
        Some(netns) => netns.run(find),
        None => find(),
    }
    .context("no free port on the loopback address")
}

/// One request on a connection of its own, which ends with the answer.
fn request(address: SocketAddr, path: &str, accept: &str) -> Result<HttpAnswer> {
    let mut connection = TcpStream::connect_timeout(&address, CONNECT)?;
    connection.set_read_timeout(Some(ANSWER))?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{address}{path} didn't answer in HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("{address}{path} answered without a status"))?;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    };
    let is_chunked = header("transfer-encoding") == "chunked";
    let body = if is_chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(HttpAnswer {
        status,
        content_type: header("content-type"),
        body,
    })
}

/// Puts the chunks of a body together.
fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk has no size")?;
        let size =
            usize::from_str_radix(size.trim(), 16).with_context(|| format!("`{size}` is no chunk size"))?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("a chunk is cut off")?);
        body = rest.get(size + 2..).context("a chunk has no end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(
            unchunk("4\r\nWiki\r\nB\r\npedia in \nc\r\n0\r\n\r\n").expect("it is whole"),
            "Wikipedia in \nc"
        );
        assert!(unchunk("4\r\nWi").is_err());
    }
}
