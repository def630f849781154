//! What a user owns of what is kept for one (spec LI8).

use syncline_core::{
    UserId,
    wire::{Quota, Share},
};
use syncline_store::{Context, Loaded, Reader, StorageError, Want};

/// As the last commit left it. Nothing is read where nothing is limited.
pub(crate) async fn quota<R: Reader>(
    context: &Context,
    reader: &mut R,
    user: Option<&UserId>,
) -> Result<Quota, StorageError> {
    let limits = context.limits();
    let Some(user) = user.filter(|_| limits.has_quota()) else {
        return Ok(Quota::default());
    };
    let mut loaded = Loaded::default();
    reader
        .look(&[Want::Owned(user.clone())], &mut loaded)
        .await?;
    let owned = loaded.owned.get(user).copied().unwrap_or_default();
    let share = |owned, max| (max > 0).then_some(Share { owned, max });
    Ok(Quota {
        rows: share(owned.rows, limits.user_rows),
        bytes: share(owned.bytes, limits.user_bytes),
    })
}
