//! Deciding conflicts in the app's own code.
//!
//! A column that merges by hand (`merge = { budget = "manual" }` in `syncline.toml`) keeps the
//! server's value when two people changed it, and opens a conflict for the one who came second.
//! A resolver answers it on one of that person's devices; the answer is an ordinary change, which
//! the server takes only if nobody decided meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use syncline_core::{Timestamp, Value};
use syncline_replica::{Conflict, Resolution};

use crate::{manager::SyncManager, sync_error::Error, system, worker::Core};

/// A future that a resolver or provider gives back.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A row: its columns by name.
pub type Record = BTreeMap<String, Value>;

/// A conflict with what is needed to decide it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConflictCase {
    /// The conflict itself: table, key, column, base, mine, theirs as JSON.
    pub conflict: Conflict,
    /// The row as this user wants it.
    pub local_data: Record,
    /// The row as the server has it; empty if it was deleted there.
    pub remote_data: Record,
    /// When this user wrote; `None` on a device where somebody else's edit is not known, that is
    /// on every device but the one that made it.
    pub local_timestamp: Option<Timestamp>,
    /// When the server's row was last written; `None` where that is not known: on other devices,
    /// and where the same edit wrote other columns of the row, too.
    pub remote_timestamp: Option<Timestamp>,
}

impl ConflictCase {
    /// The table, which document and screens may call the entity's type.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.conflict.table
    }

    /// What this user wrote into the column; `None` for a row that was deleted.
    #[must_use]
    pub fn mine(&self) -> Option<&Value> {
        self.local_data.get(self.conflict.column.as_deref()?)
    }

    /// What the server has in the column; `None` for a row that was deleted.
    #[must_use]
    pub fn theirs(&self) -> Option<&Value> {
        self.remote_data.get(self.conflict.column.as_deref()?)
    }
}

/// Decides conflicts. Async closures are resolvers; [`decide`] makes one of a plain closure.
///
/// `None` leaves the conflict in the inbox, for a person or another device; so does a panic.
///
/// A run waits for the resolvers that it made necessary: one that awaits a run of the same manager
/// ([`SyncManager::sync`] and the like) waits for ever. One that captures a [`SyncManager`] keeps
/// its engine running until [`SyncManager::close`].
pub trait Resolver: Send + Sync + 'static {
    /// Decides one conflict.
    fn resolve(&self, case: ConflictCase) -> BoxFuture<'static, Option<Resolution>>;
}

impl<F, Fut> Resolver for F
where
    F: Fn(ConflictCase) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<Resolution>> + Send + 'static,
{
    fn resolve(&self, case: ConflictCase) -> BoxFuture<'static, Option<Resolution>> {
        Box::pin(self(case))
    }
}

/// A resolver that needs no `await`. It runs on the engine's thread: it should be quick.
pub fn decide(
    decide: impl Fn(&ConflictCase) -> Option<Resolution> + Send + Sync + 'static,
) -> impl Resolver {
    move |case: ConflictCase| std::future::ready(decide(&case))
}

/// Resolvers that are there already.
pub mod resolvers {
    use syncline_core::Value;
    use syncline_replica::Resolution;

    use super::{ConflictCase, Resolver, decide};

    /// What was written later wins; the server's where it is not known when that was written. Left
    /// open on devices that do not know when this user wrote.
    pub fn newest() -> impl Resolver {
        decide(later)
    }

    /// What this user wrote wins.
    pub fn local() -> impl Resolver {
        decide(|_| Some(Resolution::Mine))
    }

    /// What the server has wins.
    pub fn remote() -> impl Resolver {
        decide(|_| Some(Resolution::Theirs))
    }

    /// For notifications: who has read, dismissed or archived one has done so for good, whichever
    /// side it was; otherwise the later one wins. A notification that was deleted stays so.
    pub fn notification() -> impl Resolver {
        decide(|case| {
            let (Some(mine), Some(theirs)) = (case.mine(), case.theirs()) else {
                return Some(Resolution::Theirs);
            };
            match (progress_of(mine), progress_of(theirs)) {
                (mine, theirs) if mine > theirs => Some(Resolution::Mine),
                (mine, theirs) if mine < theirs => Some(Resolution::Theirs),
                _ => later(case),
            }
        })
    }

    /// For projects and other things people write: something wins over nothing, otherwise the
    /// later one wins. A project that somebody deleted while it was being edited comes back.
    pub fn project() -> impl Resolver {
        decide(|case| {
            let (Some(mine), Some(theirs)) = (case.mine(), case.theirs()) else {
                return Some(Resolution::Mine);
            };
            match (is_empty(mine), is_empty(theirs)) {
                (false, true) => Some(Resolution::Mine),
                (true, false) => Some(Resolution::Theirs),
                (true, true) | (false, false) => later(case),
            }
        })
    }

    /// For settings: JSON objects are joined, keys that both changed from the one that wrote
    /// later; other values from the one that wrote later.
    pub fn settings() -> impl Resolver {
        decide(|case| {
            let (Some(mine), Some(theirs)) = (case.mine(), case.theirs()) else {
                return Some(Resolution::Mine);
            };
            let wins = later(case);
            let (Some(mut mine), Some(mut theirs)) = (object(mine), object(theirs)) else {
                return wins;
            };
            let joined = match wins? {
                Resolution::Mine => {
                    theirs.append(&mut mine);
                    theirs
                }
                Resolution::Theirs | Resolution::Value(_) => {
                    mine.append(&mut theirs);
                    mine
                }
            };
            let text = serde_json::Value::Object(joined).to_string();
            Some(Resolution::Value(Value::Text(text)))
        })
    }

    fn later(case: &ConflictCase) -> Option<Resolution> {
        let local = case.local_timestamp?;
        Some(match case.remote_timestamp {
            Some(remote) if local > remote => Resolution::Mine,
            Some(_) | None => Resolution::Theirs,
        })
    }

    /// How far somebody is done with a notification.
    fn progress_of(value: &Value) -> u8 {
        match value {
            Value::Integer(0) | Value::Null => 0,
            Value::Integer(_) => 1,
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "archived" | "dismissed" | "done" => 2,
                "read" | "seen" | "true" => 1,
                _ => 0,
            },
            Value::Real(_) | Value::Blob(_) => 0,
        }
    }

    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Text(text) => matches!(text.trim(), "" | "[]" | "{}" | "null"),
            Value::Blob(bytes) => bytes.is_empty(),
            Value::Integer(_) | Value::Real(_) => false,
        }
    }

    fn object(value: &Value) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_str(value.as_text()?).ok()
    }
}

/// Who decides, and what is being decided.
#[derive(Default)]
pub(crate) struct Resolvers {
    by_table: BTreeMap<String, Arc<dyn Resolver>>,
    /// For the run that is under way.
    pub(crate) of_run: Option<Arc<dyn Resolver>>,
    deciding: BTreeSet<String>,
    decided: u64,
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_table.keys()).finish()
    }
}

impl Resolvers {
    fn of(&self, table: &str) -> Option<Arc<dyn Resolver>> {
        let own = self.by_table.get(&table.to_lowercase());
        self.of_run.as_ref().or(own).cloned()
    }
}

impl SyncManager {
    /// Has conflicts of a table decided by code of the app: those that are open, and those to
    /// come. The first device of the person that has a resolver answers.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn set_resolver(
        &self,
        table: impl Into<String>,
        resolver: impl Resolver,
    ) -> Result<(), Error> {
        let table = table.into().to_lowercase();
        let resolver: Arc<dyn Resolver> = Arc::new(resolver);
        self.ask(move |core| {
            core.resolvers.borrow_mut().by_table.insert(table, resolver);
            decide_open(core)
        })
        .await
    }

    /// Leaves further conflicts of the table to people.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Closed`].
    pub async fn remove_resolver(&self, table: impl Into<String>) -> Result<(), Error> {
        let table = table.into().to_lowercase();
        self.ask(move |core| {
            core.resolvers.borrow_mut().by_table.remove(&table);
            Ok(())
        })
        .await
    }
}

/// Begins to decide every open conflict that has a resolver.
pub(crate) fn decide_open(core: &Rc<Core>) -> Result<(), Error> {
    let open = core.with(|replica| replica.conflicts(true))?;
    for conflict in open.unwrap_or_default() {
        begin(core, &conflict.id, &conflict.table);
    }
    Ok(())
}

/// Begins to decide a conflict, if its table has a resolver.
pub(crate) fn begin(core: &Rc<Core>, id: &str, table: &str) {
    let resolver = {
        let mut resolvers = core.resolvers.borrow_mut();
        let Some(resolver) = resolvers.of(table) else {
            return;
        };
        if !resolvers.deciding.insert(id.to_owned()) {
            return;
        }
        resolver
    };
    let deciding = Deciding {
        core: Rc::clone(core),
        id: id.to_owned(),
    };
    tokio::task::spawn_local(async move {
        let Deciding { core, id } = &deciding;
        match one(core, id, &*resolver).await {
            Ok(true) => core.resolvers.borrow_mut().decided += 1,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, conflict = id, "a resolver's answer was not taken");
            }
        }
    });
}

/// A conflict that is being decided, until its resolver has answered or panicked.
struct Deciding {
    core: Rc<Core>,
    id: String,
}

impl Drop for Deciding {
    fn drop(&mut self) {
        self.core.resolvers.borrow_mut().deciding.remove(&self.id);
        self.core.decided.notify_waiters();
    }
}

/// Waits until nothing is being decided; how much has been, ever.
pub(crate) async fn all_decided(core: &Core) -> u64 {
    loop {
        let changed = core.decided.notified();
        {
            let resolvers = core.resolvers.borrow();
            if resolvers.deciding.is_empty() {
                return resolvers.decided;
            }
        }
        changed.await;
    }
}

async fn one(core: &Core, id: &str, resolver: &dyn Resolver) -> Result<bool, Error> {
    let case = core.with(|replica| {
        let conflict = replica.conflict(id)?;
        let sides = replica.conflict_sides(&conflict)?;
        Ok(ConflictCase {
            conflict,
            local_data: sides.local,
            remote_data: sides.remote,
            local_timestamp: sides.local_at,
            remote_timestamp: sides.remote_at,
        })
    })?;
    let Some(case) = case.filter(|case| case.conflict.open) else {
        return Ok(false);
    };
    let Some(resolution) = resolver.resolve(case).await else {
        return Ok(false);
    };
    core.with(|replica| replica.resolve(id, &resolution, system::now()))?;
    Ok(true)
}
