//! The tables of a server, and those it would add for a file.

use syncline_core::{Schema, Table, wire::SchemaInfo};

use crate::{api::Api, attach::AttachPlan, error::ClientError};

/// The server's tables, those included that it would add; these are noted in `plan`. Nothing is
/// changed there. That the server has no use for some is no error: they are left out.
pub(crate) async fn look(
    api: &Api,
    local: &[&Table],
    plan: &mut AttachPlan,
) -> Result<Schema, ClientError> {
    let present = api.schema().await?.to_schema();
    let unknown: Vec<Table> = local
        .iter()
        .filter(|table| present.table(&table.name).is_none())
        .map(|table| (*table).clone())
        .collect();
    if unknown.is_empty() {
        return Ok(present);
    }
    match api.offer(&offered(&unknown), true).await {
        Ok(after) => {
            plan.to_add = unknown;
            Ok(after.to_schema())
        }
        Err(ClientError::Refused { .. }) if unknown.len() < local.len() => Ok(present),
        Err(error) => Err(error),
    }
}

/// Has the server add the tables that it lacks.
pub(crate) async fn add(api: &Api, plan: &AttachPlan) -> Result<(), ClientError> {
    if !plan.to_add.is_empty() {
        api.offer(&offered(&plan.to_add), false).await?;
    }
    Ok(())
}

fn offered(tables: &[Table]) -> SchemaInfo {
    SchemaInfo::from_schema(&Schema {
        tables: tables.to_vec(),
    })
}
