//! Accounts, logins and the audit log in the data file, over a connection of their own: what
//! people do with their accounts waits for no changesets, and no changeset for them.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use syncline_core::{DeviceId, Timestamp, UserId};
use syncline_store::{
    Owned, StorageError,
    accounts::{
        Account, AccountRecords, AccountStore, AuditEvent, AuditRecord, AuditWant, Login, LoginId,
        Purpose, SigningKey, Ticket,
    },
};

use crate::{
    fault::{Fault, Result},
    format::{self, FORMAT},
    ledger, load,
    open::OpenError,
    place::Place,
};

/// The accounts of one data file.
#[derive(Debug)]
pub struct SqliteAccounts {
    place: Place,
    /// `None` after it failed in a way that leaves open what is on the disk.
    conn: Mutex<Option<Connection>>,
}

impl SqliteAccounts {
    pub(crate) fn new(place: Place) -> Result<Self> {
        let conn = Mutex::new(Some(place.writer()?));
        Ok(Self { place, conn })
    }

    /// The accounts in the data file at `database`, which a server may have open; for commands
    /// that work beside it. The file has to be there, and of this version.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(database: &Path) -> Result<Self, OpenError> {
        let wrap = |error| format::describe(database, error);
        if !database.exists() {
            return Err(OpenError::Damaged {
                path: database.into(),
                what: "there is no data of a server yet: start it once".into(),
            });
        }
        let place = Place::File(database.to_owned());
        let conn = place.writer().map_err(wrap)?;
        match format::found_format(&conn).map_err(wrap)? {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(OpenError::Newer {
                    path: database.into(),
                    found,
                    supported: FORMAT,
                });
            }
            Some(_) => {
                return Err(OpenError::Damaged {
                    path: database.into(),
                    what: "it is of an older version: start the server once to update it".into(),
                });
            }
            None => {
                return Err(OpenError::Damaged {
                    path: database.into(),
                    what: "it holds no data of a Syncline server".into(),
                });
            }
        }
        Ok(Self {
            place,
            conn: Mutex::new(Some(conn)),
        })
    }

    fn run(
        &self,
        behavior: TransactionBehavior,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        // A panic rolls back: what is behind the lock is whole all the same.
        let mut lent = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut conn = match lent.take() {
            Some(conn) => conn,
            None => self.place.writer().map_err(Fault::from)?,
        };
        let ran = in_transaction(&mut conn, behavior, work);
        if !matches!(&ran, Err(fault) if fault.distrusts_connection()) {
            *lent = Some(conn);
        }
        Ok(ran?)
    }
}

fn in_transaction(
    conn: &mut Connection,
    behavior: TransactionBehavior,
    work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
) -> Result<()> {
    let transaction = conn.transaction_with_behavior(behavior)?;
    work(&mut Records(&transaction))?;
    transaction.commit()?;
    Ok(())
}

impl AccountStore for SqliteAccounts {
    fn transact(
        &self,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.run(TransactionBehavior::Immediate, work)
    }

    fn look(
        &self,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.run(TransactionBehavior::Deferred, work)
    }
}

/// What there is of accounts and the audit log, in the transaction that the connection is in.
pub(crate) struct Records<'c>(pub(crate) &'c Connection);

const ACCOUNT: &str = "id, email, password, created, verified, disabled, claims";
const LOGIN: &str = "id, account, created, renewed, expires, current, previous, seed, client";
const AUDIT: &str = "number, at, kind, actor, subject, address, detail, chain";

impl Records<'_> {
    fn one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StorageError> {
        let mut statement = self.0.prepare_cached(sql).map_err(Fault::from)?;
        let found = statement.query_row(params, read).optional();
        Ok(found.map_err(Fault::from)?)
    }

    fn many<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StorageError> {
        let mut statement = self.0.prepare_cached(sql).map_err(Fault::from)?;
        let rows = statement.query_map(params, read).map_err(Fault::from)?;
        Ok(rows.collect::<rusqlite::Result<_>>().map_err(Fault::from)?)
    }

    fn write(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StorageError> {
        let mut statement = self.0.prepare_cached(sql).map_err(Fault::from)?;
        statement.execute(params).map_err(Fault::from)?;
        Ok(())
    }
}

impl AccountRecords for Records<'_> {
    fn account(&mut self, id: &str) -> Result<Option<Account>, StorageError> {
        let sql = format!("SELECT {ACCOUNT} FROM syncline_accounts WHERE id = ?1");
        self.one(&sql, [id], account)
    }

    fn account_of(&mut self, email: &str) -> Result<Option<Account>, StorageError> {
        let sql = format!("SELECT {ACCOUNT} FROM syncline_accounts WHERE email = ?1");
        self.one(&sql, [email], account)
    }

    fn accounts(&mut self, after: &str, max: usize) -> Result<Vec<Account>, StorageError> {
        let sql = format!(
            "SELECT {ACCOUNT} FROM syncline_accounts WHERE email > ?1 ORDER BY email LIMIT ?2"
        );
        self.many(&sql, params![after, limit(max)], account)
    }

    fn put_account(&mut self, account: &Account) -> Result<(), StorageError> {
        self.write(
            "INSERT INTO syncline_accounts(id, email, password, created, verified, disabled, claims)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT(id) DO UPDATE SET email = ?2, password = ?3, created = ?4, verified = ?5,
               disabled = ?6, claims = ?7",
            params![
                account.id,
                account.email,
                account.password,
                stored(account.created),
                account.verified.map(stored),
                account.disabled.map(stored),
                account.claims,
            ],
        )
    }

    fn remove_account(&mut self, id: &str) -> Result<(), StorageError> {
        self.write("DELETE FROM syncline_tickets WHERE account = ?1", [id])?;
        self.write("DELETE FROM syncline_accounts WHERE id = ?1", [id])
    }

    fn login(&mut self, id: LoginId) -> Result<Option<Login>, StorageError> {
        let sql = format!("SELECT {LOGIN} FROM syncline_logins WHERE id = ?1");
        self.one(&sql, [&id.0[..]], login)
    }

    fn logins(&mut self, account: &str) -> Result<Vec<Login>, StorageError> {
        let sql = format!(
            "SELECT {LOGIN} FROM syncline_logins WHERE account = ?1 ORDER BY renewed DESC, id"
        );
        self.many(&sql, [account], login)
    }

    fn put_login(&mut self, login: &Login) -> Result<(), StorageError> {
        self.write(
            "INSERT OR REPLACE INTO syncline_logins(id, account, created, renewed, expires,
               current, previous, seed, client)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                &login.id.0[..],
                login.account,
                stored(login.created),
                stored(login.renewed),
                stored(login.expires),
                &login.current[..],
                login.previous.as_ref().map(|hash| &hash[..]),
                &login.seed[..],
                login.client,
            ],
        )
    }

    fn link_device(&mut self, login: LoginId, device: DeviceId) -> Result<(), StorageError> {
        // One that ended meanwhile is not remembered.
        self.write(
            "INSERT OR IGNORE INTO syncline_login_devices(device, login)
             SELECT ?1, id FROM syncline_logins WHERE id = ?2",
            params![&device.0[..], &login.0[..]],
        )
    }

    fn logins_on(&mut self, device: DeviceId) -> Result<Vec<Login>, StorageError> {
        let sql = format!(
            "SELECT {LOGIN} FROM syncline_logins
             WHERE id IN (SELECT login FROM syncline_login_devices WHERE device = ?1) ORDER BY id"
        );
        self.many(&sql, [&device.0[..]], login)
    }

    fn end_login(&mut self, id: LoginId, at: Timestamp) -> Result<(), StorageError> {
        for sql in [
            "DELETE FROM syncline_login_devices WHERE login = ?1",
            "DELETE FROM syncline_logins WHERE id = ?1",
        ] {
            self.write(sql, [&id.0[..]])?;
        }
        self.write(
            "INSERT INTO syncline_ended_logins(id, at) VALUES (?1, ?2)",
            params![&id.0[..], stored(at)],
        )
    }

    fn ended(&mut self, after: u64) -> Result<Vec<(u64, LoginId)>, StorageError> {
        let sql = "SELECT place, id FROM syncline_ended_logins WHERE place > ?1 ORDER BY place";
        self.many(sql, [after.cast_signed()], |row| {
            let place: i64 = row.get(0)?;
            Ok((place.cast_unsigned(), LoginId(row.get(1)?)))
        })
    }

    fn put_ticket(&mut self, ticket: &Ticket) -> Result<(), StorageError> {
        self.write(
            "INSERT INTO syncline_tickets(hash, account, purpose, expires) VALUES (?1, ?2, ?3, ?4)",
            params![
                &ticket.hash[..],
                ticket.account,
                number(ticket.purpose),
                stored(ticket.expires),
            ],
        )
    }

    fn take_ticket(&mut self, hash: &[u8; 32]) -> Result<Option<Ticket>, StorageError> {
        let sql =
            "DELETE FROM syncline_tickets WHERE hash = ?1 RETURNING account, purpose, expires";
        self.one(sql, [&hash[..]], |row| {
            Ok(Ticket {
                hash: *hash,
                account: row.get(0)?,
                purpose: match row.get(1)? {
                    RESET => Purpose::Reset,
                    _ => Purpose::Verify,
                },
                expires: time(row.get(2)?),
            })
        })
    }

    fn remove_tickets(&mut self, account: &str, purpose: Purpose) -> Result<(), StorageError> {
        self.write(
            "DELETE FROM syncline_tickets WHERE account = ?1 AND purpose = ?2",
            params![account, number(purpose)],
        )
    }

    fn signing_keys(&mut self) -> Result<Vec<SigningKey>, StorageError> {
        let sql = "SELECT id, created, secret FROM syncline_signing_keys ORDER BY created DESC, id";
        self.many(sql, [], |row| {
            Ok(SigningKey {
                id: row.get(0)?,
                created: time(row.get(1)?),
                secret: row.get(2)?,
            })
        })
    }

    fn put_signing_key(&mut self, key: &SigningKey) -> Result<(), StorageError> {
        self.write(
            "INSERT INTO syncline_signing_keys(id, created, secret) VALUES (?1, ?2, ?3)",
            params![key.id, stored(key.created), key.secret],
        )
    }

    fn remove_signing_key(&mut self, id: &str) -> Result<(), StorageError> {
        self.write("DELETE FROM syncline_signing_keys WHERE id = ?1", [id])
    }

    fn owned(&mut self, user: &str) -> Result<Option<Owned>, StorageError> {
        if ledger::counted(self.0)?.is_none() {
            return Ok(None);
        }
        Ok(Some(load::user_owns(self.0, &UserId(user.to_owned()))?))
    }

    fn audit_head(&mut self) -> Result<Option<AuditRecord>, StorageError> {
        let sql = format!("SELECT {AUDIT} FROM syncline_audit ORDER BY number DESC LIMIT 1");
        self.one(&sql, [], audit)
    }

    fn put_audit(&mut self, record: &AuditRecord) -> Result<(), StorageError> {
        let event = &record.event;
        self.write(
            "INSERT INTO syncline_audit(number, at, kind, actor, subject, address, detail, chain)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                record.number.cast_signed(),
                stored(event.at),
                event.kind,
                event.actor,
                event.subject,
                event.address,
                event.detail,
                &record.chain[..],
            ],
        )
    }

    fn audit(&mut self, want: &AuditWant) -> Result<Vec<AuditRecord>, StorageError> {
        let before = want.before.map_or(i64::MAX, u64::cast_signed);
        let sql = format!(
            "SELECT {AUDIT} FROM syncline_audit
             WHERE number < ?1 AND (?2 IS NULL OR kind = ?2)
               AND (?3 IS NULL OR actor = ?3 OR subject = ?3)
             ORDER BY number DESC LIMIT ?4"
        );
        let params = params![before, want.kind, want.user, limit(want.max)];
        self.many(&sql, params, audit)
    }

    fn forget(
        &mut self,
        now: Timestamp,
        ends_before: Timestamp,
        audit_before: Timestamp,
    ) -> Result<(), StorageError> {
        for (sql, at) in [
            (
                "DELETE FROM syncline_login_devices WHERE login IN
                   (SELECT id FROM syncline_logins WHERE expires <= ?1)",
                now,
            ),
            ("DELETE FROM syncline_logins WHERE expires <= ?1", now),
            ("DELETE FROM syncline_tickets WHERE expires <= ?1", now),
            (
                "DELETE FROM syncline_ended_logins WHERE at < ?1",
                ends_before,
            ),
            // The newest stays: the chain goes on from it.
            (
                "DELETE FROM syncline_audit
                 WHERE at < ?1 AND number < (SELECT max(number) FROM syncline_audit)",
                audit_before,
            ),
        ] {
            self.write(sql, [stored(at)])?;
        }
        Ok(())
    }
}

const VERIFY: i64 = 0;
const RESET: i64 = 1;

fn number(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::Verify => VERIFY,
        Purpose::Reset => RESET,
    }
}

fn stored(time: Timestamp) -> i64 {
    time.0.cast_signed()
}

fn time(stored: i64) -> Timestamp {
    Timestamp(stored.cast_unsigned())
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        email: row.get(1)?,
        password: row.get(2)?,
        created: time(row.get(3)?),
        verified: row.get::<_, Option<i64>>(4)?.map(time),
        disabled: row.get::<_, Option<i64>>(5)?.map(time),
        claims: row.get(6)?,
    })
}

fn login(row: &Row<'_>) -> rusqlite::Result<Login> {
    Ok(Login {
        id: LoginId(row.get(0)?),
        account: row.get(1)?,
        created: time(row.get(2)?),
        renewed: time(row.get(3)?),
        expires: time(row.get(4)?),
        current: row.get(5)?,
        previous: row.get(6)?,
        seed: row.get(7)?,
        client: row.get(8)?,
    })
}

fn audit(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    let number: i64 = row.get(0)?;
    Ok(AuditRecord {
        number: number.cast_unsigned(),
        event: AuditEvent {
            at: time(row.get(1)?),
            kind: row.get(2)?,
            actor: row.get(3)?,
            subject: row.get(4)?,
            address: row.get(5)?,
            detail: row.get(6)?,
        },
        chain: row.get(7)?,
    })
}
