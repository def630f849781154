//! What a run tells while it lasts: the replica's events, counted, and how far it is.

use std::time::Duration;

use syncline_replica::{Closing, Event, Status};

use super::{Driver, Notice};
use crate::error::ClientError;

/// Progress is told this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

impl Driver {
    pub(super) fn tell_progress(
        &mut self,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<(), ClientError> {
        if self.progress_told.elapsed() >= PROGRESS_EVERY {
            self.progress_told = std::time::Instant::now();
            let status = self.check(self.replica().status())?;
            if status.waiting > 0 || status.accepted > 0 {
                on_notice(&Notice::Sending, &status);
            }
        }
        Ok(())
    }

    pub(super) fn drain(
        &mut self,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<(), ClientError> {
        let mut status = None;
        while let Some(event) = self.next_event() {
            self.count(&event);
            self.progress.set(self.summary);
            if matches!(event, Event::Connected { .. }) {
                self.is_token_renewed = false;
                self.withheld = None;
                self.remember_url()?;
            }
            if let Event::LoadingRefused { code, message } = &event {
                self.withheld = Some(Closing {
                    code: code.clone(),
                    message: message.clone(),
                    retry: false,
                });
            }
            let status = match &mut status {
                Some(status) => status,
                None => status.insert(self.check(self.replica().status())?),
            };
            on_notice(&Notice::Event(&event), status);
        }
        Ok(())
    }

    /// The address where the server was met last.
    fn remember_url(&mut self) -> Result<(), ClientError> {
        let url = &self.connection.url;
        let failed = |error| ClientError::replica(&self.path, error);
        let mut replica = self.replica();
        if replica.url().map_err(failed)?.as_deref() != Some(url.as_str()) {
            replica.set_url(url).map_err(failed)?;
        }
        Ok(())
    }

    fn count(&mut self, event: &Event) {
        let summary = &mut self.summary;
        match event {
            Event::RowsChanged(rows) => {
                summary.rows_received += rows.keys.as_ref().map_or(0, |keys| keys.len() as u64);
            }
            Event::ChangeRefused { .. } => summary.refused += 1,
            Event::EditLost { .. } => summary.edits_lost += 1,
            Event::ConflictOpened { .. } => summary.conflicts_opened += 1,
            Event::Connected { .. }
            | Event::ConflictResolved { .. }
            | Event::Loading(_)
            | Event::Live { .. }
            | Event::Diverged { .. }
            | Event::Resynced
            | Event::AccessLost { .. }
            | Event::Released { .. }
            | Event::Subscribed(_)
            | Event::SubscriptionsRefused { .. }
            | Event::LoadingRefused { .. }
            | Event::RowUnstorable { .. }
            | Event::ChangeHidden { .. }
            | Event::RowUnfit { .. }
            | Event::DigestMismatch { .. }
            | Event::Rekeyed { .. }
            | Event::TablesLeftOut { .. }
            | Event::Rescanned { .. }
            | Event::CellsUnreadable { .. } => {}
        }
    }
}
