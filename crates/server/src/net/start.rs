//! Getting the storage ready, and the thread it lives on.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{Version, config::Config, rules::Rules, wire::SchemaInfo};
use syncline_store::{
    AccessChange, Auditor, Context, Group, Head, SchemaOptions, Storage, accounts::AccountStore,
    count_owned, drain_external, rebuild_rules,
};
use tokio::sync::mpsc;

use super::{
    Backend, Options, ServeError, clock,
    committer::{self, Committer, Request},
    readers,
};
use crate::{Recent, SessionContext};

pub(super) struct Started<R> {
    pub(super) readers: Vec<R>,
    pub(super) context: Arc<SessionContext>,
    pub(super) notes: Vec<String>,
    /// Where the committer waits for whom to tell, and who writes down what.
    pub(super) publish_to: std::sync::mpsc::SyncSender<Told>,
    pub(super) rules_since: Version,
    pub(super) accounts: Option<Arc<dyn AccountStore>>,
    /// What other programs gave and took while the server did not run.
    pub(super) access: BTreeMap<AccessChange, u64>,
}

pub(super) type Told = (committer::Publish, Option<Arc<dyn Auditor>>);
pub(super) type Ready<R> = tokio::sync::oneshot::Sender<Result<Started<R>, ServeError>>;

/// The storage's thread: opens it, brings it up to date, says so, and commits until the end.
pub(super) fn spawn_committer<B: Backend>(
    backend: Arc<B>,
    options: &Options,
    queue: mpsc::Receiver<Request>,
    ready: Ready<B::Reader>,
) -> Result<std::thread::JoinHandle<()>, ServeError> {
    let config = options.config.clone();
    let schema_options = SchemaOptions {
        managed: config.server.managed,
        allow: options.allow.clone(),
    };
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                drop(ready.send(Err(ServeError::Stopped(error.to_string()))));
                return;
            }
        };
        runtime.block_on(async move {
            let mut storage = match backend.open() {
                Ok(storage) => storage,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            let prepared = prepare(&mut storage, &config, &schema_options, None).await;
            let Prepared {
                session: context,
                notes,
                head,
                access,
            } = match prepared {
                Ok(prepared) => prepared,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let readers = (0..readers::READERS_MAX)
                .map(|_| B::reader(&storage))
                .collect();
            let readers = match readers {
                Ok(readers) => readers,
                Err(error) => return drop(ready.send(Err(ServeError::Storage(error)))),
            };
            let accounts = match B::accounts(&storage) {
                Ok(accounts) => accounts,
                Err(error) => return drop(ready.send(Err(ServeError::Storage(error)))),
            };
            let (publish_to, publish) = std::sync::mpsc::sync_channel(1);
            let commit_context = Arc::clone(&context.plan);
            let rules_since = head.rules_since;
            if ready
                .send(Ok(Started {
                    readers,
                    context,
                    notes,
                    publish_to,
                    rules_since,
                    accounts,
                    access,
                }))
                .is_err()
            {
                return;
            }
            let Ok((publish, auditor)) = publish.recv() else {
                return;
            };
            let commit_context = match &auditor {
                Some(auditor) => {
                    let context = Context::clone(&commit_context);
                    Arc::new(context.audited(Arc::clone(auditor)))
                }
                None => commit_context,
            };
            let (retention_days, history_days) =
                (config.server.retention_days, config.server.history_days);
            let committer = Committer::<B> {
                storage,
                context: commit_context,
                publish,
                auditor,
                retention_days,
                history_days,
            };
            committer.run(queue).await;
        });
    };
    std::thread::Builder::new()
        .name("committer".into())
        .spawn(body)
        .map_err(|error| ServeError::Stopped(error.to_string()))
}

/// A storage that is up to date with its configuration.
pub(crate) struct Prepared {
    pub(crate) session: Arc<SessionContext>,
    pub(crate) notes: Vec<String>,
    pub(crate) head: Head,
    pub(crate) access: BTreeMap<AccessChange, u64>,
}

/// Brings tables, rules, buckets and grants up to date with the configuration.
pub(crate) async fn prepare<S: Storage>(
    storage: &mut S,
    config: &Config,
    options: &SchemaOptions,
    auditor: Option<Arc<dyn Auditor>>,
) -> Result<Prepared, ServeError> {
    let report = storage.apply_schema(config, options).await?;
    let rules = Rules::compile(&report.schema, storage.secret()).map_err(ServeError::Rules)?;
    let mut notes = report.notes;
    notes.extend(storage.prepare_lookups(&rules.lookups()).await?);
    let fingerprint = rules.fingerprint();
    let info = SchemaInfo::from_schema(&report.schema);
    let mut context = Context::new(report.schema, rules).limited(config.limits.clone());
    if let Some(auditor) = auditor {
        context = context.audited(auditor);
    }
    let context = Arc::new(context);
    let now = clock::now();
    if report.rules != Some(fingerprint) {
        let rebuilt = rebuild_rules(storage, &context, now).await?;
        if rebuilt.rows > 0 {
            tracing::info!(
                rows = rebuilt.rows,
                "rules changed: who sees what was computed anew"
            );
        }
    }
    let drained = drain_external(storage, &context, now).await;
    if let Some(error) = drained.failure {
        return Err(error.into());
    }
    let counted = count_owned(storage, &context, now).await?;
    if counted > 0 {
        tracing::info!(
            rows = counted,
            "what people own was counted, for the quotas of [limits]"
        );
    }
    storage.keep_history(config.server.history_days > 0).await?;
    let group = storage.begin().await?;
    let head = group.head();
    group.rollback().await;
    let session = Arc::new(SessionContext {
        server: storage.server_id(),
        secret: *storage.secret(),
        info_hash: info.hash(),
        info,
        plan: Arc::clone(&context),
        recent: Arc::new(Recent::new(head.version, head.tag)),
        subscriptions_max: config.limits.device_subscriptions,
    });
    Ok(Prepared {
        session,
        notes,
        head,
        access: drained.access,
    })
}
