//! Keys of encrypted columns.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct EncryptionKey {
    /// The file to make. Every device of the people who share the data needs a copy; without any,
    /// what was sealed is lost.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Reseal {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// A file with the key that seals; repeated, those with the older keys.
    #[arg(
        long,
        value_name = "FILE",
        env = "SYNCLINE_ENCRYPTION_KEY_FILE",
        value_delimiter = ','
    )]
    pub encryption_key_file: Vec<PathBuf>,
}
