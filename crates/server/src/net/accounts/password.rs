//! Passwords: argon2id, a few at a time, and what is too weak to be one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

/// A longer one is not looked at: hashing it would cost more than it tells.
pub const PASSWORD_BYTES_MAX: usize = 128;
/// In characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Passwords that are hashed at once, 19 MiB each.
const HASHING_MAX: usize = 2;
/// Those that wait for it; whoever comes then is told to come back.
const WAITING_MAX: usize = 64;

/// What people choose when twelve characters are asked for.
const COMMON: &[&str] = &[
    "123456789012",
    "1234567890123",
    "12345678901234",
    "123456123456",
    "121212121212",
    "111111111111",
    "000000000000",
    "aaaaaaaaaaaa",
    "abcdefghijkl",
    "abcdefabcdef",
    "abc123abc123",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyqwerty",
    "qwerty123456",
    "1qaz2wsx3edc",
    "1q2w3e4r5t6y",
    "q1w2e3r4t5y6",
    "asdfghjkl123",
    "zxcvbnm12345",
    "password1234",
    "password12345",
    "password123456",
    "passwordpassword",
    "password2024",
    "password2025",
    "password2026",
    "mypassword123",
    "changemeplease",
    "changeme1234",
    "letmeinletmein",
    "letmein12345",
    "iloveyou1234",
    "iloveyouiloveyou",
    "welcome12345",
    "welcomewelcome",
    "adminadminadmin",
    "administrator",
    "administrator1",
    "admin1234567",
    "football1234",
    "baseball1234",
    "superman1234",
    "princess1234",
    "sunshine1234",
    "monkeymonkey",
    "dragondragon",
    "trustno1trustno1",
    "correcthorsebatterystaple",
    "secretsecret",
    "testtesttest",
    "test12345678",
    "defaultdefault",
    "p@ssw0rd1234",
    "passw0rd1234",
    "unknownunknown",
    "internet1234",
    "computer1234",
    "whatever1234",
];

/// Why a password is not taken, with what to do; `None` if it is.
pub fn weakness(password: &str, email: &str) -> Option<String> {
    let chars = password.chars().count();
    if chars < PASSWORD_CHARS_MIN {
        return Some(format!(
            "the password has {chars} characters: take {PASSWORD_CHARS_MIN} or more, a few words \
             for example"
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Some(format!(
            "the password has {} bytes: take at most {PASSWORD_BYTES_MAX}",
            password.len()
        ));
    }
    let plain = password.to_lowercase();
    let name = email.split('@').next().unwrap_or_default();
    let first = plain.chars().next();
    let is_guessed = COMMON.contains(&plain.as_str())
        || plain.chars().all(|char| Some(char) == first)
        || plain == email
        || (name.len() > 3 && plain.trim_matches(|c: char| c.is_ascii_digit()) == name);
    is_guessed.then(|| {
        "the password is among those that are guessed first: take a few words of your own".into()
    })
}

/// So many passwords wait to be hashed that one more would wait too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Hashes passwords, on threads that may block.
#[derive(Debug)]
pub(crate) struct Hasher {
    places: Semaphore,
    waiting: AtomicUsize,
    done: AtomicU64,
    /// Of a password that nobody has, for accounts that do not exist.
    nobody: Arc<str>,
}

impl Hasher {
    pub(crate) fn new() -> Result<Self, String> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        Ok(Self {
            places: Semaphore::new(HASHING_MAX),
            waiting: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            nobody: hash(&random)?.into(),
        })
    }

    /// A PHC string for `password`; `None` if this machine cannot make one.
    pub(crate) async fn hash(&self, password: &str) -> Result<Option<String>, Busy> {
        let password = password.as_bytes().to_vec();
        self.work(move || hash(&password).ok()).await
    }

    /// Whether `password` is the one of `phc`. Without one it is not, which takes as long to find
    /// out.
    pub(crate) async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool, Busy> {
        let password = password.as_bytes().to_vec();
        let is_somebody = phc.is_some();
        let phc = phc.map_or_else(|| Arc::clone(&self.nobody), Arc::from);
        let is_right = self.work(move || verify(&password, &phc)).await?;
        Ok(is_right && is_somebody)
    }

    /// How many passwords were hashed.
    #[cfg(test)]
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let waiting = Waiting::enter(&self.waiting).ok_or(Busy)?;
        let _place = self.places.acquire().await.map_err(|_| Busy)?;
        drop(waiting);
        self.done.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }
}

/// One that waits, until it is dropped, also when its caller has gone.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn enter(count: &'c AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A PHC string of argon2id with a salt of its own; takes some fifty milliseconds.
///
/// # Errors
/// No random bytes, or no memory.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password)
        .map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

fn verify(password: &[u8], phc: &str) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn ac4_a_password_is_kept_as_argon2id_with_a_salt_of_its_own() {
        let (one, two) = (
            hash(b"the same words").unwrap(),
            hash(b"the same words").unwrap(),
        );
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        assert!(verify(b"the same words", &one) && verify(b"the same words", &two));
        assert!(!verify(b"other words", &one) && !verify(b"the same words", "no hash"));
    }

    #[test]
    fn ac4_weak_passwords_are_told_apart_with_what_to_do() {
        for weak in [
            "",
            "short",
            "elevenchars",
            "Password1234",
            "zzzzzzzzzzzzzzzz",
            "123456789012",
            "ana.marble2026",
            "ana.marble@example.com",
            &"long ".repeat(30),
        ] {
            let said = weakness(weak, "ana.marble@example.com").expect(weak);
            assert!(said.contains("take"), "{said}");
        }
        for good in ["three brown foxes", "Grüße aus Köln!", "x8!kd02-mmQ1z"] {
            assert_eq!(weakness(good, "ana.marble@example.com"), None, "{good}");
        }
    }

    #[tokio::test]
    async fn ac5_whoever_comes_when_too_many_wait_is_told_at_once() {
        let hasher = Hasher::new().unwrap();
        hasher.places.forget_permits(HASHING_MAX);
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(hasher.verify("a password", None)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert_eq!(hasher.verify("a password", None).await, Err(Busy));
        // Those who gave up have left.
        drop(waiting);
        hasher.places.add_permits(HASHING_MAX);
        assert_eq!(hasher.verify("a password", None).await, Ok(false));
        assert_eq!(hasher.done(), 1);
    }
}
