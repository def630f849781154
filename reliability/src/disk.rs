//! The disk under a process: a library that is loaded before the system's (`shim/disk.c`), and the
//! file through which it is told when to fail.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;

const SOURCE: &str = include_str!("../shim/disk.c");
const TRIM: &str = include_str!("../shim/trim.c");
const CONTROL_BYTES: usize = 4096;

/// A kind of call, with its place in the counters of the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Call {
    Write = 0,
    Sync = 1,
    Read = 2,
    Open = 3,
    Name = 4,
}

/// Numbers in the control file, by their place.
#[derive(Debug, Clone, Copy)]
enum Field {
    FailKinds = 5,
    FailErrno = 6,
    FailAfter = 7,
    FailTimes = 8,
    Failed = 9,
    CutAfter = 10,
    CutNow = 11,
    Seed = 12,
    Lies = 13,
    Unsynced = 14,
    DataSyncs = 16,
}

/// What a failed call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    Io = 5,
    NoSpace = 28,
}

/// The disk of one process.
pub(crate) struct Disk {
    library: PathBuf,
    folder: PathBuf,
    path: PathBuf,
    control: File,
}

impl Disk {
    /// Under everything in `folder`. The library is compiled when it is first wanted.
    pub(crate) fn new(lab: &Lab, folder: &Path, name: &str) -> Result<Self> {
        let library = lab.shared("disk.so");
        if !library.exists() {
            compile(&library, &lab.shared("disk.c"), SOURCE)?;
        }
        let path = lab.shared(&format!("{name}.disk"));
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        control.write_all_at(&[0; CONTROL_BYTES], 0)?;
        let disk = Self {
            library,
            folder: folder.to_owned(),
            path,
            control,
        };
        disk.set(Field::CutAfter, -1)?;
        Ok(disk)
    }

    pub(crate) fn put_under(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("DISK_FOLDER", &self.folder)
            .env("DISK_CONTROL", &self.path);
    }

    /// The power goes after so many calls that change something, what survives by `seed`.
    pub(crate) fn cut_after(&self, calls: u64, seed: u64) -> Result<()> {
        self.set(Field::CutNow, 0)?;
        self.set(Field::Seed, i64::try_from(seed >> 1)?)?;
        self.set(Field::CutAfter, i64::try_from(calls)?)
    }

    /// The power goes now.
    pub(crate) fn cut(&self) -> Result<()> {
        self.set(Field::CutNow, 1)
    }

    /// From now on fsync says that it has done what it has not.
    pub(crate) fn lie(&self) -> Result<()> {
        self.set(Field::Lies, 1)
    }

    /// Changes that no fsync had covered when the power went.
    pub(crate) fn unsynced(&self) -> Result<u64> {
        Ok(self.get(Field::Unsynced as usize)?.unsigned_abs())
    }

    /// Calls of fdatasync so far: SQLite here knows it, and the disk sees it (`.cargo/config.toml`).
    pub(crate) fn data_syncs(&self) -> Result<u64> {
        Ok(self.get(Field::DataSyncs as usize)?.unsigned_abs())
    }

    /// After `good` more calls of these kinds `times` of them fail; all when that is `None`.
    pub(crate) fn fail(
        &self,
        kinds: &[Call],
        errno: Errno,
        good: u64,
        times: Option<u64>,
    ) -> Result<()> {
        self.heal()?;
        self.set(Field::FailErrno, errno as i64)?;
        self.set(Field::FailAfter, i64::try_from(good)?)?;
        self.set(Field::FailTimes, times.map_or(Ok(-1), i64::try_from)?)?;
        let kinds = kinds.iter().fold(0, |all, &kind| all | (1 << kind as u32));
        self.set(Field::FailKinds, kinds)
    }

    pub(crate) fn heal(&self) -> Result<()> {
        self.set(Field::FailKinds, 0)
    }

    /// Calls that have failed so far.
    pub(crate) fn failed(&self) -> Result<u64> {
        Ok(self.get(Field::Failed as usize)?.unsigned_abs())
    }

    /// Calls of these kinds so far.
    pub(crate) fn calls(&self, kinds: &[Call]) -> Result<u64> {
        let calls = kinds.iter().map(|&kind| self.get(kind as usize));
        calls.map(|calls| Ok(calls?.unsigned_abs())).sum()
    }

    fn set(&self, field: Field, number: i64) -> Result<()> {
        let at = 8 * field as u64;
        Ok(self.control.write_all_at(&number.to_ne_bytes(), at)?)
    }

    fn get(&self, place: usize) -> Result<i64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, 8 * place as u64)?;
        Ok(i64::from_ne_bytes(bytes))
    }
}

/// Has the memory that a process frees go back to the system.
pub(crate) fn trim(lab: &Lab, command: &mut Command) -> Result<()> {
    let library = lab.shared("trim.so");
    if !library.exists() {
        compile(&library, &lab.shared("trim.c"), TRIM)?;
    }
    command.env("LD_PRELOAD", library);
    Ok(())
}

fn compile(library: &Path, source: &Path, text: &str) -> Result<()> {
    std::fs::write(source, text)?;
    let made = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([library, source])
        .args(["-ldl", "-lpthread"])
        .output()
        .context("run cc: a C compiler is needed (Debian: apt-get install gcc libc6-dev)")?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(
        made.status.success(),
        "compile {}: {said}",
        source.display()
    );
    Ok(())
}
