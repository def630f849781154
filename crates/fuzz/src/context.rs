//! What every session of a server shares, over a storage in memory.

use std::sync::Arc;

use syncline_core::wire::SchemaInfo;
use syncline_server::{Recent, SessionContext};
use syncline_store::{
    Group as _, Storage as _,
    memory::MemoryStorage,
    testkit::{World, block_on},
};

/// The context of sessions over `world` as it is now; the window on the log's end keeps about so
/// many bytes.
pub(crate) fn session_context(
    world: &mut World<MemoryStorage>,
    recent_bytes: usize,
) -> Arc<SessionContext> {
    let group = block_on(world.storage.begin()).expect("memory has a head");
    let head = group.head();
    block_on(group.rollback());
    let info = SchemaInfo::from_schema(world.context.schema());
    Arc::new(SessionContext {
        server: world.storage.server_id(),
        secret: *world.storage.secret(),
        info_hash: info.hash(),
        info,
        plan: Arc::new(world.context.clone()),
        recent: Arc::new(Recent::with_limit(head.version, head.tag, recent_bytes)),
        subscriptions_max: 1_000,
    })
}
