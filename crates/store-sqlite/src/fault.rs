//! What SQLite reports, in the words of the storage traits.

use rusqlite::{Error, ErrorCode};
use syncline_store::{EncodingError, StorageError};

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// An error inside this crate, before anybody asks whose fault it is.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(Error),
    Storage(StorageError),
    /// An index, check, computed column or trigger computes something that cannot be computed
    /// for the row that is written. SQLite has no code of its own for that.
    Expression,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}
impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}
impl From<EncodingError> for Fault {
    fn from(error: EncodingError) -> Self {
        Self::Storage(StorageError::Corrupt(error.to_string()))
    }
}

impl Fault {
    /// Metadata that cannot be true.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Storage(StorageError::Corrupt(what.into()))
    }

    /// SQLite's extended result code.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Sqlite(error) => error.sqlite_error().map(|e| e.extended_code),
            Self::Storage(_) | Self::Expression => None,
        }
    }

    /// Whether the connection may no longer know what is on the disk: it is opened anew and
    /// checked before it is used again. A retried fsync proves nothing.
    pub(crate) fn distrusts_connection(&self) -> bool {
        let Self::Sqlite(error) = self else {
            return false;
        };
        !matches!(
            error.sqlite_error_code(),
            None | Some(
                ErrorCode::ConstraintViolation
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::SchemaChanged
            )
        )
    }
}

impl From<Fault> for StorageError {
    fn from(fault: Fault) -> Self {
        let error = match fault {
            Fault::Storage(error) => return error,
            Fault::Sqlite(error) => error,
            Fault::Expression => {
                return Self::Constraint {
                    message: "an expression of the table cannot be computed for the row".into(),
                    table: None,
                };
            }
        };
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OperationInterrupted,
            ) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Self::Constraint {
                    message: "a constraint of the database refuses the change".into(),
                    table: None,
                }
            }
            _ => Self::Failed(Box::new(error)),
        }
    }
}
