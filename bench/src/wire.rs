//! A device as bare as can be: it speaks the protocol and keeps nothing.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use syncline_core::{
    BucketId, Change, Changeset, ChangesetId, ColumnEdit, ColumnNumber, Cursor, DeviceId, Edit,
    Hlc, Lease, Op, RowKey, TableNumber, Timestamp, Value, Version,
    wire::{
        ClientMessage, Hello, Load, PROTOCOL, Push, Refusal, SchemaInfo, ServerMessage, Verdict,
        Welcome, decode_server, encode_changeset, encode_client,
    },
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
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
    /// What proves the device in its next Hello.
    lease: Lease,
    cursor: Option<Cursor>,
    /// How many buckets are granted, and the sum of their names' beginnings.
    buckets: (u64, u64),
}

/// What a device remembers while it is not connected.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    id: [u8; 16],
    number: u64,
    schema: SchemaInfo,
    lease: Lease,
    cursor: Option<Cursor>,
    buckets: (u64, u64),
}

/// Why a device is not connected.
#[derive(Debug)]
pub(crate) struct Refused {
    /// It was told to come back, not before so many milliseconds.
    pub not_before: Option<u64>,
    pub why: String,
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        let http = error.downcast_ref::<tungstenite::Error>();
        let not_before = match http {
            Some(tungstenite::Error::Http(answer)) => {
                let seconds = answer.headers().get("retry-after");
                let seconds = seconds.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
                seconds.map(|seconds: u64| seconds * 1_000)
            }
            Some(_) | None => None,
        };
        Self {
            not_before,
            why: format!("{error:#}"),
        }
    }
}

impl Device {
    /// Connects and says Hello; nothing is loaded yet.
    pub(crate) async fn connect(url: &str, token: &str, n: usize) -> Result<Self> {
        let mut id = [0xB0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let known = Known {
            id,
            number: 1,
            schema: SchemaInfo { tables: Vec::new() },
            lease: Lease::default(),
            cursor: None,
            buckets: (0, 0),
        };
        let mut device = Self::greet(url, token, known).await?;
        loop {
            match device.receive().await? {
                ServerMessage::Welcome(welcome) => device.welcomed(*welcome),
                ServerMessage::Grants(grants) => {
                    device.granted(&grants.add);
                    return Ok(device);
                }
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

    /// Connects again, and waits until it is told that it has everything.
    pub(crate) async fn come_back(url: &str, token: &str, known: Known) -> Result<Self, Refused> {
        let mut device = Self::greet(url, token, known).await?;
        loop {
            match device.receive().await? {
                ServerMessage::Welcome(welcome) => device.welcomed(*welcome),
                ServerMessage::Grants(grants) if grants.full => {
                    device.granted(&grants.add);
                    let positions = Vec::new();
                    device
                        .send(&ClientMessage::Load(Load { positions }))
                        .await?;
                }
                ServerMessage::Checkpoint(checkpoint) => {
                    device.cursor = Some(checkpoint.cursor);
                    if checkpoint.loading == 0 && checkpoint.caught_up {
                        return Ok(device);
                    }
                }
                ServerMessage::Refusal(refusal) if refusal.fatal => return Err(refused(refusal)),
                ServerMessage::Grants(_)
                | ServerMessage::Refusal(_)
                | ServerMessage::PushResult(_)
                | ServerMessage::Page(_)
                | ServerMessage::Changes(_)
                | ServerMessage::Pong(_)
                | ServerMessage::Unknown(_) => {}
            }
        }
    }

    /// Listens until the connection ends; why it did.
    pub(crate) async fn ended(&mut self) -> Refused {
        loop {
            match self.receive().await {
                Ok(ServerMessage::Refusal(refusal)) if refusal.fatal => return refused(refusal),
                Ok(ServerMessage::Checkpoint(checkpoint)) => self.cursor = Some(checkpoint.cursor),
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    }

    /// What it remembers when it is not connected any more.
    pub(crate) fn known(&self) -> Known {
        Known {
            id: self.id,
            number: self.number,
            schema: self.schema.clone(),
            lease: self.lease,
            cursor: self.cursor,
            buckets: self.buckets,
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        self.id = welcome.device.0;
        self.lease = welcome.lease;
        self.pushes_max = welcome.pushes_max as usize;
        self.number = welcome.next_number;
        if let Some(schema) = welcome.schema {
            self.schema = schema;
        }
    }

    fn granted(&mut self, buckets: &[BucketId]) {
        let summands = buckets.iter().map(|bucket| bucket.summand());
        let sum = summands.fold(0, u64::wrapping_add);
        self.buckets = (buckets.len() as u64, sum);
    }

    /// Connects and says Hello.
    async fn greet(url: &str, token: &str, known: Known) -> Result<Self> {
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
        let mut device = Self {
            socket,
            id: known.id,
            schema: known.schema,
            number: known.number,
            pushes_max: 1,
            received: 0,
            lease: known.lease,
            cursor: known.cursor,
            buckets: known.buckets,
        };
        let mut next_lease = known.lease;
        next_lease.0[0] = next_lease.0[0].wrapping_add(1);
        let is_new = device.schema.tables.is_empty();
        let hello = Hello {
            protocol: PROTOCOL,
            device: DeviceId(known.id),
            lease: known.lease,
            next_lease,
            device_name: "bench".to_owned(),
            platform: "bench".to_owned(),
            server: DeviceId::default(),
            schema_hash: if is_new { 0 } else { device.schema.hash() },
            cursors: known.cursor.into_iter().collect(),
            tables: None,
            buckets_count: known.buckets.0,
            buckets_sum: known.buckets.1,
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
        Ok(device)
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
                    self.cursor = Some(checkpoint.cursor);
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
        self.texts("news", &[&[("id", id), ("body", body)]])
    }

    /// A changeset that inserts rows of texts, as a frame; the first of each is its key.
    pub(crate) fn texts(&mut self, table: &str, rows: &[&[(&str, &str)]]) -> Result<Vec<u8>> {
        let table = self.table(table)?;
        let text = |&(name, text): &(_, &str)| (name, Value::Text(text.to_owned()));
        let changes = rows.iter().map(|row| {
            let values: Vec<_> = row.iter().map(text).collect();
            table.insert(&values)
        });
        self.frame(changes.collect::<Result<_>>()?)
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
            after: None,
            piece: None,
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

fn refused(refusal: Refusal) -> Refused {
    Refused {
        not_before: refusal.retry_after_ms,
        why: refusal.message,
    }
}

fn now() -> Timestamp {
    syncline::engine::now()
}
