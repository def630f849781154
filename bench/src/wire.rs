//! A device as bare as can be: it speaks the protocol and keeps nothing.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use syncline_core::{
    Change, Changeset, ChangesetId, ColumnEdit, ColumnNumber, DeviceId, Edit, Hlc, Lease, Op,
    RowKey, TableNumber, Timestamp, Value, Version,
    wire::{
        ClientMessage, Hello, PROTOCOL, Push, SchemaInfo, ServerMessage, Verdict, decode_server,
        encode_changeset, encode_client,
    },
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use crate::rows::Item;

/// Credit that is never used up.
const PLENTY: u64 = 1 << 40;

/// It is cleared before each read.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// A session after Welcome and grants.
pub(crate) struct Device {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    id: [u8; 16],
    schema: SchemaInfo,
    number: u64,
    pub pushes_max: usize,
    /// Bytes received so far.
    pub received: usize,
}

impl Device {
    /// Connects and says Hello; nothing is loaded yet.
    pub(crate) async fn connect(url: &str, token: &str, n: usize) -> Result<Self> {
        let mut request =
            format!("ws{}/v1/sync", url.trim_start_matches("http")).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {token}").parse()?);
        headers.insert("sec-websocket-protocol", "syncline.v1".parse()?);
        let config = WebSocketConfig::default()
            .max_message_size(Some(128 << 20))
            .max_frame_size(Some(128 << 20))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0);
        let (socket, _) = connect_async_with_config(request, Some(config), true).await?;
        let mut id = [0xB0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let mut device = Self {
            socket,
            id,
            schema: SchemaInfo { tables: Vec::new() },
            number: 1,
            pushes_max: 1,
            received: 0,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            device: DeviceId(id),
            lease: Lease::default(),
            next_lease: Lease([1; 16]),
            device_name: format!("bench {n}"),
            platform: "bench".to_owned(),
            server: DeviceId::default(),
            schema_hash: 0,
            cursors: Vec::new(),
            tables: None,
            buckets_count: 0,
            buckets_sum: 0,
            loading: Vec::new(),
            credit: PLENTY,
            now: now(),
            renamed: false,
            register_anew: false,
            subscriptions: None,
            subscribed: 0,
            loads_again: false,
        };
        device.send(&ClientMessage::Hello(hello)).await?;
        loop {
            match device.receive().await? {
                ServerMessage::Welcome(welcome) => {
                    device.id = welcome.device.0;
                    device.pushes_max = welcome.pushes_max as usize;
                    device.number = welcome.next_number;
                    device.schema = welcome.schema.context("the tables")?;
                }
                ServerMessage::Grants(_) => return Ok(device),
                ServerMessage::Refusal(refusal) => bail!("refused: {}", refusal.message),
                ServerMessage::PushResult(_)
                | ServerMessage::Page(_)
                | ServerMessage::Changes(_)
                | ServerMessage::Checkpoint(_)
                | ServerMessage::Pong(_)
                | ServerMessage::Unknown(_) => {}
            }
        }
    }

    /// Counts the rows until all is live. A device that never met the server need not ask for
    /// them.
    pub(crate) async fn load(&mut self) -> Result<usize> {
        let mut rows = 0;
        let mut has_begun = false;
        loop {
            match self.receive().await? {
                ServerMessage::Page(page) => {
                    has_begun = true;
                    rows += page
                        .parts
                        .iter()
                        .map(|part| part.count as usize)
                        .sum::<usize>();
                }
                // The first one only says where the log was when the session began.
                ServerMessage::Checkpoint(checkpoint) => {
                    if checkpoint.loading == 0 && (has_begun || !checkpoint.live.is_empty()) {
                        return Ok(rows);
                    }
                    has_begun = true;
                }
                ServerMessage::Refusal(refusal) => bail!("refused: {}", refusal.message),
                ServerMessage::Welcome(_)
                | ServerMessage::PushResult(_)
                | ServerMessage::Grants(_)
                | ServerMessage::Changes(_)
                | ServerMessage::Pong(_)
                | ServerMessage::Unknown(_) => {}
            }
        }
    }

    /// A changeset that inserts these rows, as a frame.
    pub(crate) fn insertion(&mut self, items: &[Item]) -> Result<Vec<u8>> {
        let table = self.table("items")?;
        let changes = items.iter().map(|item| table.insert(&item.values()));
        self.frame(changes.collect::<Result<_>>()?)
    }

    /// A changeset with one piece of news, as a frame.
    pub(crate) fn news(&mut self, id: &str, body: &str) -> Result<Vec<u8>> {
        let text = |text: &str| Value::Text(text.to_owned());
        let change = self
            .table("news")?
            .insert(&[("id", text(id)), ("body", text(body))])?;
        self.frame(vec![change])
    }

    fn frame(&mut self, changes: Vec<Change>) -> Result<Vec<u8>> {
        let mut id = self.id;
        id[8..].copy_from_slice(&self.number.to_be_bytes());
        let changeset = Changeset {
            id: ChangesetId(id),
            number: self.number,
            depends: Vec::new(),
            hlc: Hlc::at(now()),
            changes,
            require_unchanged: false,
            may_be_applied_already: false,
        };
        self.number += 1;
        let body = encode_changeset(&changeset);
        let id = changeset.id;
        Ok(encode_client(&ClientMessage::Push(Push {
            id,
            body,
            parts: 0,
        })))
    }

    fn table(&self, name: &str) -> Result<Table> {
        let table = self.schema.tables.iter().find(|table| table.name == name);
        let table = table.with_context(|| format!("no table {name}"))?;
        let columns = table.columns.iter();
        Ok(Table {
            number: TableNumber(table.number),
            columns: columns
                .map(|column| (column.name.clone(), ColumnNumber(column.number)))
                .collect(),
        })
    }

    /// Pushes these frames, as many at once as the server lets, and waits for every answer.
    pub(crate) async fn push_all(&mut self, frames: Vec<Vec<u8>>, at_once: usize) -> Result<()> {
        let at_once = at_once.min(self.pushes_max);
        let mut waiting = 0;
        for frame in frames {
            self.send_frame(frame).await?;
            waiting += 1;
            if waiting == at_once {
                self.accepted().await?;
                waiting -= 1;
            }
        }
        for _ in 0..waiting {
            self.accepted().await?;
        }
        Ok(())
    }

    /// Waits for the answer to a push.
    pub(crate) async fn accepted(&mut self) -> Result<Version> {
        loop {
            if let ServerMessage::PushResult(result) = self.receive().await? {
                match result.verdict {
                    Verdict::Accepted(version) => return Ok(version),
                    Verdict::Refused(refusal) => bail!("refused: {}", refusal.message),
                }
            }
        }
    }

    /// Waits for `count` records of others; when each arrived.
    pub(crate) async fn hear(&mut self, count: usize) -> Result<Vec<Instant>> {
        let mut heard = Vec::with_capacity(count);
        while heard.len() < count {
            if let ServerMessage::Changes(changes) = self.receive().await? {
                let now = Instant::now();
                heard.extend(changes.records.iter().map(|_| now));
            }
        }
        Ok(heard)
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<()> {
        self.send_frame(encode_client(message)).await
    }

    pub(crate) async fn send_frame(&mut self, frame: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::Binary(frame.into())).await?)
    }

    pub(crate) async fn receive(&mut self) -> Result<ServerMessage> {
        loop {
            let message = self.socket.next().await.context("the server hung up")??;
            if let Message::Binary(frame) = message {
                self.received += frame.len();
                return Ok(decode_server(&frame)?);
            }
        }
    }
}

/// A table as changes name it.
struct Table {
    number: TableNumber,
    columns: BTreeMap<String, ColumnNumber>,
}

impl Table {
    /// A new row; the first value is its key.
    fn insert(&self, values: &[(&str, Value)]) -> Result<Change> {
        let mut edits = Vec::with_capacity(values.len());
        for (name, value) in values {
            let column = *self
                .columns
                .get(*name)
                .with_context(|| format!("no column {name}"))?;
            let edit = Edit::Set(value.clone());
            edits.push(ColumnEdit { column, edit });
        }
        Ok(Change {
            table: self.number,
            key: RowKey::encode([&values[0].1])?,
            base: Version(0),
            op: Op::Insert(edits),
        })
    }
}

fn now() -> Timestamp {
    syncline::engine::now()
}
