//! Hello and Welcome (spec SE1–SE7).

use syncline_core::planted;
use syncline_core::{
    DeviceId, Lease, TableNumber, Timestamp, Version,
    wire::{
        ClientMessage, Hello, PROTOCOL, Quota, ReloadReason, Resume, SUBSCRIPTIONS_MAX, Welcome,
        code,
    },
};

use super::{BEGIN_ANEW, CREDIT_WINDOW, OLD_COPY, Phase};
use crate::{
    apply::{Fault, load_positions},
    clock, codec, db,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        acknowledged::{self, Acknowledged, Taken},
        buckets, cursors, ledger,
        outbox::{self, Entry, State},
        settings::{self, Key},
    },
    replica::Replica,
    tables::load,
    work::Work,
};

impl Replica {
    /// Begins a session on a transport that is open: seals, writes the next lease to disk and
    /// queues Hello.
    ///
    /// # Errors
    /// The database's.
    pub fn connect(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.mending(now, |replica| replica.try_connect(now))
    }

    fn try_connect(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.seal(now)?;
        self.session.reset();
        if self.is_deregistered()? {
            let message = "this device was removed from its user's list of devices; register it \
                           anew to go on";
            self.session.close(code::DEREGISTERED, message, false);
            return Ok(());
        }
        if let Some((code, message)) = self.key_obstacle()? {
            self.session.close(code, message, false);
            return Ok(());
        }
        let anew = self.session.reconnect.begin_anew();
        let mut fresh = Lease::default();
        self.entropy.fill(&mut fresh.0);
        let hello = db::immediate(&self.conn, || {
            // Without a Welcome to the last Hello the server may have taken its lease or not:
            // the same is offered again.
            let lease = settings::get_id(&self.conn, Key::Lease)?;
            let offered = settings::get_id(&self.conn, Key::NextLease)?;
            let next_lease = match offered.filter(|offered| lease != Some(*offered)) {
                Some(offered) => Lease(offered),
                None => fresh,
            };
            settings::put(&self.conn, Key::NextLease, next_lease.0)?;
            buckets::go_back(&self.conn)?;
            self.hello(next_lease, anew, now)
        })?;
        let told = hello.subscriptions.clone().unwrap_or_default();
        self.session.subscriptions.told = told;
        self.session.subscriptions.told_number = hello.subscribed;
        self.session.tables.clone_from(&hello.tables);
        self.session.name_told.clone_from(&hello.device_name);
        self.session.hello_sent = now;
        self.session.last_heard = now;
        self.session.phase = Phase::Greeting;
        self.session.send(&ClientMessage::Hello(hello));
        Ok(())
    }

    fn hello(&self, next_lease: Lease, anew: bool, now: Timestamp) -> Result<Hello, ReplicaError> {
        let conn = &self.conn;
        let (buckets_count, buckets_sum) = buckets::summary(conn)?;
        let cursors = match anew {
            true => Vec::new(),
            false => cursors::list(conn)?,
        };
        let subscriptions = self.asked(SUBSCRIPTIONS_MAX)?;
        let subscribed = settings::get_count(conn, Key::Subscribed)?;
        let text = |key| settings::get::<String>(conn, key);
        let flag = |key| Ok::<_, ReplicaError>(settings::get(conn, key)?.unwrap_or(false));
        Ok(Hello {
            protocol: PROTOCOL,
            device: DeviceId(settings::get_id(conn, Key::Device)?.unwrap_or_default()),
            lease: Lease(settings::get_id(conn, Key::Lease)?.unwrap_or_default()),
            next_lease,
            device_name: text(Key::DeviceName)?.unwrap_or_default(),
            platform: text(Key::Platform)?.unwrap_or_default(),
            server: DeviceId(settings::get_id(conn, Key::Server)?.unwrap_or_default()),
            schema_hash: load::schema(conn)?.map_or(0, |schema| schema.hash()),
            loading: match cursors.is_empty() {
                true => Vec::new(),
                false => load_positions(conn, &self.tables)?,
            },
            cursors,
            tables: self.wanted()?,
            buckets_count,
            buckets_sum,
            credit: CREDIT_WINDOW,
            now,
            renamed: flag(Key::NamedHere)?,
            register_anew: flag(Key::RegisterAnew)?,
            subscriptions: Some(subscriptions),
            subscribed,
            loads_again: flag(Key::LoadsAgain)?,
        })
    }

    /// The tables to name in Hello: all where missing ones are created; else those that were
    /// matched, so none before the server's schema is known.
    fn wanted(&self) -> Result<Option<Vec<TableNumber>>, ReplicaError> {
        if load::takes_all(&self.conn)? {
            return Ok(None);
        }
        let remote = self.tables.iter().filter_map(|table| table.remote.as_ref());
        let mut numbers: Vec<_> = remote.map(|remote| remote.table.number).collect();
        numbers.sort_unstable();
        Ok(Some(numbers))
    }

    pub(super) fn welcome(&mut self, welcome: Welcome, now: Timestamp) -> Result<(), ReplicaError> {
        if let Some((code, message)) = self.unwelcome(&welcome)? {
            self.session.close(code, message, false);
            return Ok(());
        }
        if self.is_old_copy(&welcome)? {
            self.give_up_lease()?;
            // The server is there, and takes it for another device the next time.
            self.session.reconnect.succeeded();
            let message = "this file is an older copy of what the server knows of this device";
            self.session.close(OLD_COPY, message, true);
            return Ok(());
        }
        let sent = self.session.hello_sent;
        // Kept, as the server may have to be heard once more.
        let told = self.session.name_told.clone();
        let taken = self.transact(now, |work, entropy| {
            take_name(work.conn, &welcome, &told)?;
            take_welcome(work, &welcome, sent, entropy, now)
        })?;
        if taken.is_none() {
            return Ok(());
        }
        if let Some(info) = &welcome.schema {
            self.adopt_schema(now, |conn| load::put_schema(conn, info))?;
        }
        if let Some((code, message)) = self.welcome_obstacle()? {
            self.session.close(code, message, false);
            return Ok(());
        }
        self.session.phase = Phase::Streaming;
        self.session
            .subscriptions
            .welcomed(welcome.subscriptions_max);
        if let Some(token) = self.session.token.take() {
            self.session.renew_token(token);
        }
        self.session.pushes_max = (welcome.pushes_max as usize).clamp(1, PUSHES_MAX);
        self.session.reloads = match welcome.resume {
            Resume::Continue => false,
            Resume::Reload { .. } => true,
        };
        self.session.reconnect.succeeded();
        if !self.session.reloads && self.session.reconnect.wants_anew() {
            let message = "what the server sends cannot be read: everything is asked for anew";
            self.session.close(BEGIN_ANEW, message, true);
            return Ok(());
        }
        self.session.is_welcome_unfinished = true;
        self.finish_welcome(welcome.quota, now)
    }

    /// What follows once the Welcome counts: called again with it where this fails.
    pub(super) fn finish_welcome(
        &mut self,
        quota: Option<Quota>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        if self.wanted()? != self.session.tables {
            self.session
                .close(BEGIN_ANEW, "other tables sync now", true);
            return Ok(());
        }
        self.take_quota(quota, now)?;
        self.pump(now)?;
        self.session.is_welcome_unfinished = false;
        Ok(())
    }

    /// Whether the device has used numbers that this file knows nothing of: it was restored from a
    /// backup made since its last Hello, so that its lease alone proves nothing (spec SE2).
    fn is_old_copy(&self, welcome: &Welcome) -> Result<bool, ReplicaError> {
        if settings::get_id(&self.conn, Key::Device)? != Some(welcome.device.0) {
            return Ok(false);
        }
        let next = settings::get_count(&self.conn, Key::NextNumber)?;
        let is_a_count = welcome.next_number <= NUMBER_MAX && !planted!(NumberReused);
        Ok(is_a_count && welcome.next_number > next.max(1))
    }

    /// Has the next Hello prove nothing, so that the server gives the file another device id.
    fn give_up_lease(&mut self) -> Result<(), ReplicaError> {
        let mut unknown = Lease::default();
        self.entropy.fill(&mut unknown.0);
        db::immediate(&self.conn, || {
            settings::remove(&self.conn, Key::NextLease)?;
            settings::put(&self.conn, Key::Lease, unknown.0)
        })
    }

    /// Why this server is not the one that this file belongs to.
    fn unwelcome(&self, welcome: &Welcome) -> Result<Option<(&'static str, String)>, ReplicaError> {
        if welcome.protocol != PROTOCOL {
            let message = format!(
                "the server speaks protocol {}, this program {PROTOCOL}; update the older one",
                welcome.protocol
            );
            return Ok(Some((code::PROTOCOL, message)));
        }
        let server = settings::get_id(&self.conn, Key::Server)?;
        if server.is_some_and(|known| known != welcome.server.0) {
            let message = "the file belongs to another server; detach it first, or use its copy";
            return Ok(Some((code::WRONG_SERVER, message.to_owned())));
        }
        let user: Option<String> = settings::get(&self.conn, Key::User)?;
        if let Some(user) = user.filter(|known| *known != welcome.user) {
            let message = format!(
                "the file belongs to {user}, the token to {}; sign in as {user} or detach the file",
                welcome.user
            );
            return Ok(Some((code::WRONG_USER, message)));
        }
        Ok(None)
    }
}

/// What the server calls this device, unless it was given another name here since Hello; and
/// whatever made it one that is not wanted has passed (spec DE2, DE5).
fn take_name(
    conn: &rusqlite::Connection,
    welcome: &Welcome,
    told: &str,
) -> Result<(), ReplicaError> {
    settings::remove(conn, Key::Deregistered)?;
    settings::remove(conn, Key::RegisterAnew)?;
    settings::remove(conn, Key::Wiped)?;
    let name: Option<String> = settings::get(conn, Key::DeviceName)?;
    if name.unwrap_or_default() == told {
        settings::remove(conn, Key::NamedHere)?;
        if let Some(name) = &welcome.device_name {
            settings::put(conn, Key::DeviceName, name)?;
        }
    }
    Ok(())
}

/// Everything a Welcome changes on disk, but the schema (spec SE7).
fn take_welcome(
    work: &mut Work<'_>,
    welcome: &Welcome,
    sent: Timestamp,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), Fault> {
    let conn = work.conn;
    if welcome.next_number > NUMBER_MAX {
        let number = welcome.next_number;
        return Err(Fault::Peer(format!("no device counts up to {number}")));
    }
    clock::measure(conn, sent, now, welcome.now)?;
    let forked = settings::get_id(conn, Key::Device)? != Some(welcome.device.0);
    settings::put(conn, Key::Server, welcome.server.0)?;
    settings::put(conn, Key::User, &welcome.user)?;
    settings::put(conn, Key::Device, welcome.device.0)?;
    settings::put(conn, Key::Lease, welcome.lease.0)?;
    // Nothing forgotten is younger than the horizon, if nothing better is told.
    let head = welcome.head.unwrap_or(welcome.horizon);
    let last = Version(settings::get_count(conn, Key::Head)?);
    let mut is_restored = welcome.head.is_some() && head < last;
    settings::put(conn, Key::Head, head.0.cast_signed())?;
    match welcome.subscriptions_max {
        Some(max) => settings::put(conn, Key::SubscriptionsMax, i64::from(max) + 1)?,
        None => settings::remove(conn, Key::SubscriptionsMax)?,
    }
    if forked {
        outbox::doubt_all(conn)?;
    }
    work.events.push(Event::Connected {
        user: welcome.user.clone(),
        forked,
    });
    if let Resume::Reload { reason, common } = &welcome.resume {
        // Until the first checkpoint the server may go back, and only cursors tell: it finds the
        // same reason again, or that it has lost something. Another device's say nothing.
        let is_told_again = matches!(reason, ReloadReason::Horizon | ReloadReason::Rules);
        match reason {
            ReloadReason::Diverged => {
                let common = common.map_or(Version::ZERO, |cursor| cursor.version);
                let resent = diverge(work, common, entropy, now)?;
                is_restored = true;
                work.events.push(Event::Diverged { resent });
            }
            ReloadReason::Horizon => work.events.push(Event::Resynced),
            ReloadReason::Rules => {
                settings::put(conn, Key::Renamed, true)?;
                work.events.push(Event::Resynced);
            }
            ReloadReason::New => {}
        }
        settings::put(conn, Key::LoadsAgain, *reason != ReloadReason::New)?;
        buckets::reload_all(conn)?;
        if forked || !is_told_again {
            cursors::clear(conn)?;
        }
        settings::remove(conn, Key::LoadedRows)?;
    }
    outbox::ask_again(conn, welcome.horizon)?;
    outbox::clamp_after(conn, head)?;
    acknowledged::expire(conn, welcome.now)?;
    // Another device's numbers say nothing.
    let counted = if forked { 0 } else { welcome.next_number };
    outbox::take_numbers(conn, counted, is_restored)?;
    settings::put(conn, Key::NextNumber, welcome.next_number.cast_signed())?;
    Ok(())
}

/// The largest number of a changeset: what JSON can hold, and far from any overflow.
const NUMBER_MAX: u64 = 1 << 53;
/// Most unanswered pushes, whatever the server allows.
const PUSHES_MAX: usize = 256;

/// The server lost everything after `common`: own changesets later than that are unsent again,
/// with the same ids and before younger ones, and rows later than that give way to any page
/// (spec OB4). Returns how many changesets that are.
fn diverge(
    work: &mut Work<'_>,
    common: Version,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<u64, ReplicaError> {
    let conn = work.conn;
    let mut again = Vec::new();
    for mut entry in accepted_after(conn, common)? {
        entry.state = State::Sealed;
        outbox::put(conn, &entry)?;
        again.push(entry.seq);
    }
    for Taken { kept, is_sound } in acknowledged::take_after(conn, common)? {
        if planted!(LostTailNotResent) {
            continue;
        }
        let decoded = codec::decode_changeset(&kept.body).map_err(|error| error.to_string());
        let changeset = match decoded {
            Ok(changeset) if is_sound => changeset,
            other => {
                let what = other.err().unwrap_or("it is another".to_owned());
                // Its place may be another's by now.
                let seq = outbox::next_seq(conn)?;
                let kept = Acknowledged { seq, ..kept };
                work.lose(&kept, &what, entropy, now)?;
                continue;
            }
        };
        let whole = changeset.piece.as_ref().map(|piece| piece.whole);
        let mut entry = Entry {
            seq: kept.seq,
            id: changeset.id,
            state: State::Sealed,
            // None was counted, or it was taken back.
            number: Some(changeset.number).filter(|number| *number > 0),
            first_number: None,
            version: Some(kept.version),
            hlc: changeset.hlc,
            marked: kept.marked,
            sent: true,
            require_unchanged: changeset.require_unchanged,
            doubt: false,
            after: changeset.after.unwrap_or(outbox::before(kept.version)),
            whole: whole.filter(|whole| *whole != changeset.id),
            changes: changeset.changes.len() as u64,
            bytes: 0,
            first_at: kept.at,
            last_at: kept.at,
            code: None,
            message: None,
            parked_at: None,
            is_sound: true,
        };
        let places = changeset.piece.map(|piece| piece.places);
        for (pos, change) in (0..).zip(changeset.changes) {
            let place = places.as_ref().and_then(|places| places.get(pos).copied());
            let stored = outbox::StoredChange {
                pos: place.map_or(pos as i64, i64::from),
                change,
                at: kept.at,
            };
            entry.bytes += outbox::put_change(conn, kept.seq, &stored)?;
        }
        outbox::put(conn, &entry)?;
        work.make_dirty(kept.seq)?;
        again.push(kept.seq);
    }
    for seq in &again {
        outbox::hold_younger(conn, *seq)?;
    }
    outbox::clamp_bases(conn, common)?;
    ledger::distrust_after(work, common)?;
    Ok(again.len() as u64)
}

fn accepted_after(
    conn: &rusqlite::Connection,
    common: Version,
) -> Result<Vec<Entry>, ReplicaError> {
    let accepted = outbox::in_state(conn, State::Accepted, 0, usize::MAX)?;
    Ok(accepted
        .into_iter()
        .filter(|e| e.version.is_some_and(|v| v > common))
        .collect())
}
