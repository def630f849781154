//! Asking a person at a terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::exit::{Exit, Failure};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_U: u8 = 0x15;
const BACKSPACES: [u8; 2] = [0x08, 0x7f];

/// Whether there is somebody to ask.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal()
}

/// A line.
pub(crate) fn line(question: &str) -> anyhow::Result<String> {
    say(question);
    let mut answer = String::new();
    io::BufRead::read_line(&mut io::stdin().lock().take(ANSWER_BYTES_MAX), &mut answer)?;
    Ok(answer.trim().to_owned())
}

/// A password, which the terminal does not show. Without a terminal, the first line of standard
/// input is for `--password-stdin` to take.
pub(crate) fn password(question: &str) -> anyhow::Result<String> {
    say(question);
    let answer = hidden();
    // The line break that was typed is not shown either.
    say("\n");
    answer
}

/// The password on standard input: its first line.
pub(crate) fn password_of_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin()
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut text)?;
    let first = text.lines().next().unwrap_or_default();
    if first.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no password on standard input").into());
    }
    Ok(first.to_owned())
}

fn say(text: &str) {
    let mut stderr = io::stderr();
    let _closed = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

fn hidden() -> anyhow::Result<String> {
    let _quiet = Quiet::begin()?;
    let mut typed = Vec::new();
    for byte in io::stdin().lock().bytes() {
        match byte? {
            // Signals are off, so that the terminal never stays as it is now.
            CTRL_C => return Err(Failure::new(Exit::Interrupted, "interrupted").into()),
            b'\r' | b'\n' => break,
            CTRL_D if typed.is_empty() => break,
            CTRL_U => typed.clear(),
            byte if BACKSPACES.contains(&byte) => pop_char(&mut typed),
            byte if (typed.len() as u64) < ANSWER_BYTES_MAX => typed.push(byte),
            _ => {}
        }
    }
    let not_text = |_| Failure::new(Exit::Usage, "the password is not UTF-8");
    Ok(String::from_utf8(typed).map_err(not_text)?)
}

/// Takes back the last character, however many bytes it has.
fn pop_char(typed: &mut Vec<u8>) {
    while typed.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
}

/// The terminal shows nothing and sends no signals, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_taken_back_whole() {
        let mut typed = "aü€".as_bytes().to_vec();
        for left in ["aü", "a", "", ""] {
            pop_char(&mut typed);
            assert_eq!(typed, left.as_bytes());
        }
    }
}
