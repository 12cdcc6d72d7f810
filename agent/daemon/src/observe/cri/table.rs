//! The connections that exist.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;

use sabot_abi::{CRI_ANSWER, CRI_CLOSED, CRI_REQUEST, CriChunk};

use super::connection::{Connection, News, Said, Sender, Way};

/// Connections that are followed at one time; a node has a handful.
const MOST: usize = 512;

pub(super) struct Table {
    connections: HashMap<u64, Connection>,
    /// Chunks that the kernel could not record, as far as was told.
    losses: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            connections: HashMap::new(),
            losses: 0,
        }
    }

    /// A chunk, and its bytes.
    pub(super) fn hear(&mut self, chunk: &CriChunk, bytes: &[u8], news: &mut News) {
        if chunk.losses != self.losses {
            // Any of them may be the one of which something is missing.
            self.losses = chunk.losses;
            for connection in self.connections.values_mut() {
                connection.lose(chunk.time, news);
            }
        }
        let way = match chunk.kind {
            CRI_REQUEST => Way::Request,
            CRI_ANSWER => Way::Answer,
            CRI_CLOSED => {
                if let Some(mut connection) = self.connections.remove(&chunk.connection) {
                    connection.close(chunk.time, news);
                }
                return;
            }
            _ => return,
        };
        self.make_room(chunk, news);
        let connection = self
            .connections
            .entry(chunk.connection)
            .or_insert_with(Connection::new);
        // Both ways are read in the client's process.
        if connection.client.pid != chunk.pid || connection.client.process.is_empty() {
            connection.client = sender(chunk);
        }
        let sender = connection.client.clone();
        let rest = chunk
            .total
            .saturating_sub(chunk.offset)
            .saturating_sub(chunk.length);
        let said = Said {
            way,
            sender: &sender,
            time: chunk.time,
            bytes,
            is_start: chunk.offset == 0,
            rest: rest as usize,
        };
        connection.hear(&said, news);
    }

    /// Ends what nothing more will be heard of: nobody tells when a client closes its connection, or is killed.
    pub(super) fn settle(&mut self, now: u64, is_running: impl Fn(u32) -> bool, news: &mut News) {
        self.connections.retain(|_, connection| {
            connection.settle(now, news);
            let pid = connection.client.pid;
            let is_open = pid == 0 || is_running(pid);
            if !is_open {
                connection.close(now, news);
            }
            is_open
        });
    }

    /// The runtime is another one now.
    pub(super) fn clear(&mut self, now: u64, news: &mut News) {
        for (_, mut connection) in self.connections.drain() {
            connection.close(now, news);
        }
    }

    /// Calls that are under way, by operation.
    pub(super) fn in_flight(&self, is_counted: impl Fn(&Sender) -> bool) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for operation in self
            .connections
            .values()
            .flat_map(|connection| connection.in_flight(&is_counted))
        {
            *counts.entry(operation).or_default() += 1;
        }
        counts
    }

    fn make_room(&mut self, chunk: &CriChunk, news: &mut News) {
        if self.connections.len() < MOST || self.connections.contains_key(&chunk.connection) {
            return;
        }
        let oldest = self
            .connections
            .iter()
            .min_by_key(|(_, connection)| connection.heard)
            .map(|(&key, _)| key);
        if let Some(mut connection) = oldest.and_then(|key| self.connections.remove(&key)) {
            connection.lose(chunk.time, news);
        }
    }
}

/// By the process's name where it still is there, for a thread may have one of its own.
fn sender(chunk: &CriChunk) -> Sender {
    let of_process = || {
        let name = fs::read_to_string(format!("/proc/{}/comm", chunk.pid)).ok()?;
        Some(Arc::from(name.trim_end()))
    };
    let of_thread = || {
        let name = chunk.comm.split(|&byte| byte == 0).next().unwrap_or_default();
        Arc::from(String::from_utf8_lossy(name))
    };
    Sender {
        pid: chunk.pid,
        process: of_process().unwrap_or_else(of_thread),
    }
}

#[cfg(test)]
mod tests {
    use super::super::http2::PREFACE;
    use super::super::testing::Encoder;
    use super::*;

    const VERSION: &str = "/runtime.v1.RuntimeService/Version";

    fn chunk(kind: u32, connection: u64, bytes: &[u8]) -> CriChunk {
        CriChunk {
            time: 1,
            connection,
            kind,
            pid: u32::MAX,
            total: bytes.len() as u32,
            length: bytes.len() as u32,
            comm: *b"crictl\0\0\0\0\0\0\0\0\0\0",
            ..CriChunk::default()
        }
    }

    /// A connection that begins and asks for the version.
    fn asking(table: &mut Table, connection: u64, news: &mut News) {
        let block = Encoder::default().encode(&[(":path", VERSION)]);
        let head = [0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1];
        let bytes = [PREFACE, &head, &block].concat();
        table.hear(&chunk(CRI_REQUEST, connection, &bytes), &bytes, news);
    }

    fn outcomes(news: &News) -> Vec<(&'static str, &'static str)> {
        news.ended
            .iter()
            .map(|ended| (ended.operation, ended.outcome))
            .collect()
    }

    #[test]
    fn a_call_ends_with_its_connection_and_with_its_client() {
        let (mut table, mut news) = (Table::new(), News::default());
        asking(&mut table, 10, &mut news);
        asking(&mut table, 20, &mut news);
        assert_eq!(table.in_flight(|_| true), [("Version", 2)].into());
        table.settle(2, |_| true, &mut news);
        assert_eq!(outcomes(&news), []);
        table.hear(&chunk(CRI_CLOSED, 10, &[]), &[], &mut news);
        assert_eq!(outcomes(&news), [("Version", "disconnected")]);
        let client = &news.ended[0].client;
        assert_eq!((client.pid, &*client.process), (u32::MAX, "crictl"));
        table.settle(2, |pid| pid != u32::MAX, &mut news);
        assert_eq!(outcomes(&news), [("Version", "disconnected"); 2]);
        assert!(table.connections.is_empty());
    }

    #[test]
    fn a_loss_is_one_of_every_connection() {
        let (mut table, mut news) = (Table::new(), News::default());
        asking(&mut table, 10, &mut news);
        asking(&mut table, 20, &mut news);
        let later = CriChunk {
            losses: 1,
            ..chunk(CRI_ANSWER, 20, &[])
        };
        table.hear(&later, &[], &mut news);
        assert_eq!(outcomes(&news), [("Version", "lost"); 2]);
        assert_eq!(news.out_of_sync, 2);
        // It is one only once.
        table.hear(&later, &[], &mut news);
        assert_eq!(news.out_of_sync, 2);
    }

    #[test]
    fn the_connections_are_bounded() {
        let (mut table, mut news) = (Table::new(), News::default());
        for connection in 0..2 * MOST as u64 {
            asking(&mut table, connection, &mut news);
        }
        assert_eq!(table.connections.len(), MOST);
        table.clear(2, &mut news);
        assert_eq!(news.ended.len(), 2 * MOST);
    }
}
