//! From Hello to the first frame of the stream (spec SE1–SE6).

use std::{collections::BTreeSet, sync::Arc};

use syncline_core::{
    BucketId, Cursor, DeviceId, TableNumber, Version,
    wire::{
        CURSORS_MAX, Grants, Hello, LoadPosition, PROTOCOL, Refusal, ReloadReason, Resume,
        ServerMessage, Welcome, code, encode_server,
    },
};
use syncline_store::{Head, Reader, StorageError, check_cursor};

use super::{Action, Opened, PUSHES_MAX, Phase, Session, Timestamp, streaming::resolve};
use crate::{demand::Demand, quota::quota, sight::Sight, stream::Stream};

impl Session {
    pub(super) fn hello(&mut self, hello: Hello) {
        if !matches!(self.phase, Phase::AwaitHello) {
            return self.fail(code::MALFORMED, "a second Hello on one connection", false);
        }
        if hello.protocol != PROTOCOL {
            let sentence = format!(
                "this server speaks protocol {PROTOCOL}, the client {}: upgrade the older of the two",
                hello.protocol
            );
            return self.fail(code::PROTOCOL, sentence, false);
        }
        if hello.cursors.len() > CURSORS_MAX {
            let sentence = format!("a Hello has at most {CURSORS_MAX} cursors");
            return self.fail(code::MALFORMED, sentence, false);
        }
        if hello.server != DeviceId::default() && hello.server != self.context.server {
            let sentence = "this file belongs to another server; detach it first, or connect to the \
                            server it was attached to";
            return self.fail(code::WRONG_SERVER, sentence, false);
        }
        self.out.add_credit(hello.credit);
        self.actions
            .push_back(Action::Open(Box::new(hello.clone())));
        self.phase = Phase::Opening(Box::new(hello));
    }

    /// Answers [`Action::Open`].
    pub fn opened(&mut self, result: Result<Opened, Refusal>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let Phase::Opening(hello) = phase else {
            self.phase = phase;
            return;
        };
        match result {
            Ok(opened) => {
                self.device = opened.device;
                self.lease = hello.next_lease;
                self.phase = Phase::Welcoming(hello, opened);
            }
            Err(refusal) => {
                self.phase = Phase::Opening(hello);
                self.refuse(refusal);
            }
        }
    }

    /// Reads grants, decides how the stream starts and welcomes (SE4–SE6).
    pub(super) async fn welcome<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let Phase::Welcoming(hello, opened) = &self.phase else {
            return Ok(());
        };
        let (hello, opened) = (hello.clone(), opened.clone());
        let granted = self.context.plan.rules().reader(&self.identity);
        // After the lease was taken: nothing of an earlier session comes later than this head.
        let (head, grants) = reader.grants(&granted.grantees).await?;
        let signer = opened.forked_from.unwrap_or(opened.device);
        let resume = self.resume(reader, &hello, signer, head).await?;
        self.rules_since = head.rules_since;
        let wanted = hello.subscriptions.as_deref();
        let (demand, beyond) = match wanted {
            None => (Demand::all(), &[][..]),
            Some(wanted) => self.context.demand_of(wanted),
        };
        let sight = Sight::new(granted, &grants, head.version).narrowed(demand);
        // A program that did not know subscriptions, and has everything, may have been replaced by
        // one that does: nothing was taken away from it.
        let has_all = (hello.buckets_count, hello.buckets_sum) == sight.summary_of_all();
        let released = match has_all {
            true => sight.not_asked_for(),
            false => sight.beyond(beyond),
        };
        let is_within = beyond.is_empty();
        self.sent = head.version;
        let user = self.identity.user.as_ref();
        let quota = quota(&self.context.plan, reader, user).await?;
        let schema =
            (hello.schema_hash != self.context.info_hash).then(|| self.context.info.clone());
        let welcome = Welcome {
            protocol: PROTOCOL,
            server: self.context.server,
            device: opened.device,
            lease: hello.next_lease,
            user: self.user.0.clone(),
            now,
            schema,
            resume: resume.clone(),
            next_number: opened.next_number,
            pushes_max: PUSHES_MAX,
            horizon: head.horizon,
            device_name: Some(opened.name),
            subscriptions_max: Some(self.context.subscriptions_max),
            quota: Some(quota),
            head: Some(head.version),
        };
        self.acknowledged = Some(match &resume {
            Resume::Continue => hello.cursors.first().map_or(Version::ZERO, |c| c.version),
            Resume::Reload { common, .. } => common.map_or(Version::ZERO, |c| c.version),
        });
        self.send(&ServerMessage::Welcome(Box::new(welcome)));
        if !is_within {
            self.too_many_subscriptions();
        }
        let tables: Option<BTreeSet<_>> = hello
            .tables
            .as_ref()
            .map(|tables| tables.iter().copied().collect());
        match resume {
            Resume::Reload { reason, .. } => {
                let mut stream = Stream::new(
                    Arc::clone(&self.context.recent),
                    sight,
                    tables,
                    (head.version, head.tag),
                    hello.subscribed,
                    now,
                );
                if reason != ReloadReason::New {
                    stream.load_again();
                }
                let released_tables = match reason {
                    ReloadReason::Rules => self.tables_not_asked_for(&stream.sight),
                    ReloadReason::New | ReloadReason::Horizon | ReloadReason::Diverged => {
                        Vec::new()
                    }
                };
                self.start_reload(stream, released, released_tables, now);
            }
            Resume::Continue => {
                let cursor = hello.cursors.first().copied().unwrap_or_default();
                let anew: Vec<_> = grants
                    .iter()
                    .filter(|(grant, since)| *since > cursor.version && sight.sees(&grant.bucket))
                    .map(|(grant, _)| grant.bucket)
                    .collect();
                let known = (hello.buckets_count, hello.buckets_sum) == sight.summary();
                let mut stream = Stream::new(
                    Arc::clone(&self.context.recent),
                    sight,
                    tables,
                    (cursor.version, cursor.tag),
                    hello.subscribed,
                    now,
                );
                if hello.loads_again {
                    stream.load_again();
                }
                if known && anew.is_empty() {
                    self.start_continue(stream, &hello.loading);
                } else {
                    self.send_full_grants(&stream.sight, anew, released, Vec::new());
                    self.phase = Phase::AwaitLoad(Box::new(stream));
                }
            }
        }
        self.actions.push_back(Action::Watch);
        Ok(())
    }

    /// Tables of which the user may see rows that nobody asked for (spec SU4).
    fn tables_not_asked_for(&self, sight: &Sight) -> Vec<TableNumber> {
        let rules = self.context.plan.rules();
        let buckets = sight.not_asked_for().into_iter();
        let tables: BTreeSet<TableNumber> = buckets
            .flat_map(|bucket| rules.tables_of(bucket).to_vec())
            .collect();
        tables.into_iter().collect()
    }

    fn start_reload(
        &mut self,
        mut stream: Stream,
        released: Vec<BucketId>,
        released_tables: Vec<TableNumber>,
        now: Timestamp,
    ) {
        self.send_full_grants(&stream.sight, Vec::new(), released, released_tables);
        let buckets: Vec<_> = stream.sight.buckets().collect();
        for bucket in buckets {
            for table in self.context.plan.rules().tables_of(bucket) {
                stream.load((bucket, *table), None);
            }
        }
        self.phase = Phase::Streaming(Box::new(stream));
        self.send_checkpoint(false, now);
    }

    fn start_continue(&mut self, mut stream: Stream, loading: &[LoadPosition]) {
        match resolve(&self.context, &stream.sight, loading) {
            Ok(parts) => {
                for (part, after) in parts {
                    stream.load(part, after);
                }
                self.phase = Phase::Streaming(Box::new(stream));
            }
            Err(sentence) => self.fail(code::MALFORMED, sentence, false),
        }
    }

    fn send_full_grants(
        &mut self,
        sight: &Sight,
        reload: Vec<BucketId>,
        released: Vec<BucketId>,
        released_tables: Vec<TableNumber>,
    ) {
        let grants = Grants {
            full: true,
            add: sight.buckets().collect(),
            drop: Vec::new(),
            reload,
            released,
            released_tables,
        };
        self.out
            .stream(vec![encode_server(&ServerMessage::Grants(grants)).into()]);
    }

    /// Spec SE4.
    async fn resume<R: Reader>(
        &self,
        reader: &mut R,
        hello: &Hello,
        signer: DeviceId,
        head: Head,
    ) -> Result<Resume, StorageError> {
        let reload = |reason, common| Ok(Resume::Reload { reason, common });
        let Some(newest) = hello.cursors.first() else {
            return reload(ReloadReason::New, None);
        };
        let valid =
            |cursor: &Cursor| check_cursor(&self.context.secret, &self.user, signer, cursor);
        if valid(newest) && newest.version < head.horizon {
            // Rules that changed since give buckets other names, which takes care of its own.
            let reason = match newest.version < head.rules_since {
                true => ReloadReason::Rules,
                false => ReloadReason::Horizon,
            };
            return reload(reason, None);
        }
        if valid(newest) && in_log(reader, newest).await? {
            if newest.version < head.rules_since {
                return reload(ReloadReason::Rules, Some(*newest));
            }
            return Ok(Resume::Continue);
        }
        for cursor in hello.cursors.iter().filter(|cursor| valid(cursor)) {
            if in_log(reader, cursor).await? {
                return reload(ReloadReason::Diverged, Some(*cursor));
            }
        }
        reload(ReloadReason::Diverged, None)
    }
}

async fn in_log<R: Reader>(reader: &mut R, cursor: &Cursor) -> Result<bool, StorageError> {
    Ok(reader.tag_at(cursor.version).await? == Some(cursor.tag))
}
