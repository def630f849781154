//! Edits from strangers: refused or harmless, never a panic.
