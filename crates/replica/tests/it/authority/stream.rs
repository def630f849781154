//! What the authority sends on one session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncline_core::{
    BucketId, Changeset, ChangesetId, ColumnNumber, Cursor, DeviceId, Hlc, Lease, RowKey, Schema,
    Table, TableNumber, Value, Version,
    digest::Digest,
    wire::{
        BucketDigest, Changes, Checkpoint, ClientMessage, Grants, Hello, LiveBucket, Load,
        LoadPosition, Page, PagePart, PushResult, Record, ReloadReason, Resume, RowBody, RowState,
        SchemaInfo, ServerMessage, Welcome, decode_changeset, decode_client, encode_server,
    },
};

use super::{Authority, Kept, Logged, USER};

/// One session.
#[derive(Default)]
pub(crate) struct Link {
    device: DeviceId,
    tables: Option<Vec<TableNumber>>,
    position: Version,
    granted: BTreeSet<BucketId>,
    /// Told to be loading, with the position.
    loading: BTreeMap<(BucketId, TableNumber), Option<Vec<u8>>>,
    /// Complete, waiting for a checkpoint.
    complete: BTreeSet<(BucketId, TableNumber)>,
    pub(crate) out: VecDeque<Vec<u8>>,
    /// Everything the device sent.
    pub(crate) received: Vec<ClientMessage>,
    /// Rows of one page.
    pub(crate) page_rows: usize,
    is_open: bool,
    waits_for_load: bool,
    parts: BTreeMap<ChangesetId, Vec<u8>>,
    /// The last change of subscriptions that was heard.
    subscribed: u64,
    /// Rows that leave what is granted are the reader's still.
    pub(crate) releases: bool,
}

impl Authority {
    /// Takes one frame of a device.
    pub(crate) fn receive(&mut self, link: &mut Link, frame: &[u8]) {
        let message = decode_client(frame).unwrap();
        link.received.push(message.clone());
        match message {
            ClientMessage::Hello(hello) => self.hello(link, &hello),
            ClientMessage::Push(push) if push.parts == 0 => self.push(link, push.id, &push.body),
            ClientMessage::Push(push) => drop(link.parts.insert(push.id, Vec::new())),
            ClientMessage::PushPart(part) => {
                let body = link.parts.get_mut(&part.id).unwrap();
                body.extend(&part.bytes);
                if part.bytes.len() < syncline_core::wire::PUSH_PART_BYTES {
                    let body = link.parts.remove(&part.id).unwrap();
                    self.push(link, part.id, &body);
                }
            }
            ClientMessage::Load(Load { positions }) => {
                link.waits_for_load = false;
                self.load(link, &positions);
            }
            ClientMessage::Credit(_)
            | ClientMessage::Token(_)
            | ClientMessage::Ping(_)
            | ClientMessage::Unknown(_) => {}
            ClientMessage::Subscribe(subscribe) => link.subscribed = subscribe.number,
        }
    }

    fn push(&mut self, link: &mut Link, id: ChangesetId, body: &[u8]) {
        let changeset = decode_changeset(body).unwrap();
        assert_eq!(changeset.id, id);
        let verdict = self.judge(link.device, &changeset);
        link.send(&ServerMessage::PushResult(PushResult {
            id,
            verdict,
            lost: Vec::new(),
        }));
    }

    fn hello(&mut self, link: &mut Link, hello: &Hello) {
        let mut device = hello.device;
        let known = self.devices.get(&device).cloned();
        let is_known = match &known {
            None => hello.lease == Lease::default(),
            Some(state) => {
                hello.lease == state.current
                    || (hello.lease == state.previous && hello.next_lease == state.current)
            }
        };
        if !is_known {
            self.forked += 1;
            device = DeviceId([0xF0 + self.forked; 16]);
        }
        let state = self.devices.entry(device).or_default();
        state.previous = hello.lease;
        state.current = hello.next_lease;
        let next_number = state.last_number + 1;
        link.device = device;
        link.tables.clone_from(&hello.tables);
        link.granted.clone_from(&self.granted);
        link.is_open = true;
        link.subscribed = hello.subscribed;
        let info = SchemaInfo::from_schema(&self.schema);
        let reload = self.reload.take();
        let in_log = |cursor: &&Cursor| self.cursor(cursor.version) == **cursor;
        let resume = match hello.cursors.first() {
            None => Resume::Reload {
                reason: ReloadReason::New,
                common: None,
            },
            Some(cursor) if cursor.version < self.horizon => Resume::Reload {
                reason: ReloadReason::Horizon,
                common: None,
            },
            Some(_) if reload.is_some() => Resume::Reload {
                reason: reload.unwrap(),
                common: None,
            },
            Some(cursor) if cursor.version == Version::ZERO || in_log(&cursor) => Resume::Continue,
            Some(_) => Resume::Reload {
                reason: ReloadReason::Diverged,
                common: hello.cursors.iter().find(in_log).copied(),
            },
        };
        link.send(&ServerMessage::Welcome(Box::new(Welcome {
            protocol: syncline_core::wire::PROTOCOL,
            server: self.id,
            device,
            lease: hello.next_lease,
            user: USER.into(),
            now: self.now,
            schema: (info.hash() != hello.schema_hash).then_some(info),
            resume: resume.clone(),
            next_number,
            pushes_max: 16,
            horizon: self.horizon,
            device_name: None,
            subscriptions_max: Some(self.subscriptions_max),
            quota: self.quota,
            head: Some(self.end()),
        })));
        match resume {
            Resume::Continue => {
                link.position = hello.cursors[0].version;
                let sum = link
                    .granted
                    .iter()
                    .fold(0_u64, |sum, b| sum.wrapping_add(b.summand()));
                let same =
                    hello.buckets_count == link.granted.len() as u64 && hello.buckets_sum == sum;
                if same {
                    self.load(link, &hello.loading);
                } else {
                    link.grants(true, link.granted.iter().copied().collect(), Vec::new());
                    link.waits_for_load = true;
                }
            }
            Resume::Reload { .. } => {
                link.position = self.end();
                link.grants(true, link.granted.iter().copied().collect(), Vec::new());
                self.load_all(link);
                self.checkpoint(link);
            }
        }
    }

    fn wants(&self, link: &Link, table: TableNumber) -> bool {
        link.tables
            .as_ref()
            .is_none_or(|tables| tables.contains(&table))
    }

    fn load_all(&self, link: &mut Link) {
        for bucket in link.granted.clone() {
            self.load_bucket(link, bucket);
        }
    }

    fn load_bucket(&self, link: &mut Link, bucket: BucketId) {
        let wanted = self
            .schema
            .tables
            .iter()
            .filter(|t| self.wants(link, t.number));
        let wanted: Vec<_> = wanted.map(|table| table.number).collect();
        link.loading
            .extend(wanted.into_iter().map(|table| ((bucket, table), None)));
    }

    fn load(&self, link: &mut Link, positions: &[LoadPosition]) {
        for LoadPosition {
            bucket,
            table,
            after,
        } in positions
        {
            let buckets: Vec<_> = match bucket {
                Some(bucket) => vec![*bucket],
                None => link.granted.iter().copied().collect(),
            };
            for bucket in buckets.into_iter().filter(|b| self.granted.contains(b)) {
                link.complete.remove(&(bucket, *table));
                link.loading.insert((bucket, *table), after.clone());
            }
        }
    }

    /// Gives or takes a bucket, in the stream.
    pub(crate) fn grant(&mut self, link: &mut Link, bucket: BucketId, is_granted: bool) {
        self.advance(link);
        if is_granted {
            self.granted.insert(bucket);
            link.granted.insert(bucket);
            link.grants(false, vec![bucket], Vec::new());
            self.load_bucket(link, bucket);
        } else {
            self.granted.remove(&bucket);
            link.granted.remove(&bucket);
            link.loading.retain(|(b, _), _| *b != bucket);
            link.complete.retain(|(b, _)| *b != bucket);
            link.grants(false, Vec::new(), vec![bucket]);
        }
        self.checkpoint(link);
    }

    /// Sends what is new in the log, without a checkpoint.
    pub(crate) fn send_changes(&mut self, link: &mut Link) {
        let entries: Vec<_> = self
            .log
            .iter()
            .filter(|entry| entry.version > link.position)
            .cloned()
            .collect();
        for entry in entries {
            link.position = entry.version;
            let mut message = Changes {
                buckets: Vec::new(),
                records: Vec::new(),
            };
            for record in &entry.records {
                if self.wants(link, record.table) {
                    link.record(&self.schema, record, &mut message);
                }
            }
            if !message.records.is_empty() {
                link.send(&ServerMessage::Changes(message));
            }
        }
    }

    /// Sends what is new and a checkpoint, if anything is new.
    pub(crate) fn advance(&mut self, link: &mut Link) -> bool {
        if !link.is_open || link.waits_for_load {
            return false;
        }
        let has_news = link.position < self.end() || !link.complete.is_empty();
        if has_news {
            self.send_changes(link);
            self.checkpoint(link);
        }
        has_news
    }

    pub(crate) fn checkpoint(&mut self, link: &mut Link) {
        let live: Vec<_> = std::mem::take(&mut link.complete).into_iter().collect();
        let mut digests = Vec::new();
        for bucket in &link.granted {
            for table in self
                .schema
                .tables
                .iter()
                .filter(|t| self.wants(link, t.number))
            {
                if link.loading.contains_key(&(*bucket, table.number)) {
                    continue;
                }
                let mut digest = Digest::default();
                for ((t, key), kept) in &self.rows {
                    if *t == table.number && kept.buckets.contains(bucket) {
                        digest.add(*t, key, kept.version);
                    }
                }
                let Digest { count, sum } = digest;
                digests.push(BucketDigest {
                    bucket: *bucket,
                    table: table.number,
                    count,
                    sum,
                });
            }
        }
        link.send(&ServerMessage::Checkpoint(Checkpoint {
            cursor: self.cursor(link.position),
            digests,
            live: live
                .into_iter()
                .map(|(bucket, table)| LiveBucket { bucket, table })
                .collect(),
            caught_up: true,
            now: self.now,
            loading: link.loading.len() as u64,
            subscribed: link.subscribed,
        }));
    }

    /// Sends the next page, if anything is loading.
    pub(crate) fn page(&mut self, link: &mut Link) -> bool {
        if link.waits_for_load {
            return false;
        }
        let Some(((bucket, table), after)) = link
            .loading
            .iter()
            .next()
            .map(|(place, after)| (*place, after.clone()))
        else {
            return false;
        };
        let limit = if link.page_rows == 0 {
            1_000
        } else {
            link.page_rows
        };
        let mut rows = Vec::new();
        let mut last = None;
        let mut count = 0;
        let structure = self.schema.by_number(table).unwrap();
        let after_key = after.clone().unwrap_or_default();
        for ((t, key), kept) in &self.rows {
            let is_next = *t == table
                && key.as_bytes() > after_key.as_slice()
                && kept.buckets.contains(&bucket);
            if !is_next {
                continue;
            }
            if count as usize == limit {
                break;
            }
            body(structure, key, kept, ChangesetId::default(), Hlc::default())
                .encode_into(&mut rows);
            last = Some(key.as_bytes().to_vec());
            count += 1;
        }
        let to = if count as usize == limit { last } else { None };
        match &to {
            Some(to) => drop(link.loading.insert((bucket, table), Some(to.clone()))),
            None => {
                link.loading.remove(&(bucket, table));
                link.complete.insert((bucket, table));
            }
        }
        let part = PagePart {
            bucket,
            table,
            after,
            to,
            rows,
            count,
        };
        let page = Page {
            version: self.end(),
            parts: vec![part],
            remaining: None,
        };
        link.send(&ServerMessage::Page(page));
        true
    }
}

impl Link {
    /// The reader does not have the bucket from here on.
    pub(crate) fn drop_granted(&mut self, bucket: BucketId) {
        self.granted.remove(&bucket);
    }

    pub(crate) fn send(&mut self, message: &ServerMessage) {
        self.out.push_back(encode_server(message));
    }

    fn grants(&mut self, full: bool, add: Vec<BucketId>, drop: Vec<BucketId>) {
        self.send(&ServerMessage::Grants(Grants {
            full,
            add,
            drop,
            reload: Vec::new(),
            released: Vec::new(),
            released_tables: Vec::new(),
        }));
    }

    /// The changesets that were pushed, in order.
    pub(crate) fn pushed(&self) -> Vec<Changeset> {
        let pushes = self.received.iter().filter_map(|message| match message {
            ClientMessage::Push(push) if push.parts == 0 => Some(&push.body),
            ClientMessage::Push(_)
            | ClientMessage::Hello(_)
            | ClientMessage::PushPart(_)
            | ClientMessage::Credit(_)
            | ClientMessage::Token(_)
            | ClientMessage::Ping(_)
            | ClientMessage::Load(_)
            | ClientMessage::Subscribe(_)
            | ClientMessage::Unknown(_) => None,
        });
        pushes.map(|body| decode_changeset(body).unwrap()).collect()
    }

    fn record(&self, schema: &Schema, record: &Logged, message: &mut Changes) {
        let before = record.before.intersection(&self.granted).next().is_some();
        let after: Vec<_> = record.after.intersection(&self.granted).copied().collect();
        let table = schema.by_number(record.table).unwrap();
        let whole = record
            .row
            .as_ref()
            .map(|kept| body(table, &record.key, kept, record.changeset, record.hlc));
        let gone = |state| RowBody {
            table: record.table,
            key: record.key.clone(),
            version: record.version,
            state,
            author: USER.into(),
            changeset: record.changeset,
            hlc: record.hlc,
        };
        let body = match (before, after.is_empty(), whole) {
            (true, false, Some(mut whole)) => {
                let RowState::Whole { columns, .. } = &whole.state else {
                    unreachable!()
                };
                let changed: Vec<(ColumnNumber, Value)> = columns
                    .iter()
                    .filter(|(number, _)| {
                        record
                            .changed
                            .contains(&table.position_of(*number).unwrap())
                    })
                    .cloned()
                    .collect();
                whole.state = RowState::Columns(changed);
                whole
            }
            (false, false, Some(whole)) => whole,
            (true, true, None) => gone(RowState::Deleted),
            (true, true, Some(_)) if self.releases => gone(RowState::Released),
            (true, true, Some(_)) => gone(RowState::Removed),
            _ => return,
        };
        let buckets = after
            .into_iter()
            .map(|bucket| {
                let known = message.buckets.iter().position(|b| *b == bucket);
                let position = known.unwrap_or_else(|| {
                    message.buckets.push(bucket);
                    message.buckets.len() - 1
                });
                u32::try_from(position).unwrap()
            })
            .collect();
        message.records.push(Record {
            body: body.encode(),
            buckets,
        });
    }
}

fn body(table: &Table, key: &RowKey, kept: &Kept, changeset: ChangesetId, hlc: Hlc) -> RowBody {
    let columns = table.columns.iter().zip(&kept.row.0);
    RowBody {
        table: table.number,
        key: key.clone(),
        version: kept.version,
        state: RowState::Whole {
            columns: columns
                .filter(|(column, _)| !column.generated)
                .map(|(column, value)| (column.number, value.clone()))
                .collect(),
            owner: USER.into(),
            created: kept.created,
        },
        author: USER.into(),
        changeset,
        hlc,
    }
}
