//! `syncline reseal`.

use serde_json::json;
use syncline::engine::{self, ClientError};
use syncline_replica::{ReplicaError, SealedAnew};

use super::keys;
use crate::{
    args::Reseal,
    exit::{Exit, Failure},
    output::{Output, counted},
};

pub(crate) fn run(args: &Reseal, output: &Output) -> anyhow::Result<Exit> {
    let keys = keys(&args.encryption_key_file)?;
    if keys.ids().count() < 2 {
        let sentence = "give the key that seals now, and after it the older ones: \
                        --encryption-key-file NEW --encryption-key-file OLD";
        return Err(Failure::new(Exit::Usage, sentence).into());
    }
    let mut replica = engine::open_replica_with(&args.file, keys)?;
    let (mut all, mut place) = (SealedAnew::default(), None);
    loop {
        let found = replica.seal_anew(place, engine::now());
        if let Err(error @ ReplicaError::StillLoading) = &found {
            return Err(Failure::new(Exit::Usage, error.to_string()).into());
        }
        let (more, next) = found.map_err(|source| ClientError::replica(&args.file, source))?;
        all += more;
        output.object(&json!({
            "type": "sealed_anew", "rows": all.rows, "waiting": all.waiting, "others": all.others,
            "done": next.is_none(),
        }));
        if next.is_none() {
            break;
        }
        place = next;
    }
    output.line(&format!(
        "{} to be sent with the new key: `syncline sync` sends them",
        counted(all.rows, "row")
    ));
    if all.waiting > 0 {
        output.line(&format!(
            "{} left because changes of them wait: sync, then do this again",
            counted(all.waiting, "row")
        ));
    }
    if all.others > 0 {
        output.line(&format!(
            "{} of other people, who do this themselves",
            counted(all.others, "row")
        ));
    }
    Ok(Exit::Done)
}
