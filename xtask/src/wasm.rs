//! Reads the import section of a WebAssembly module.

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC_AND_VERSION: &[u8] = b"\0asm\x01\0\0\0";
const IMPORT_SECTION: u8 = 2;

/// What `module` imports, as `module.name`, in order.
pub(crate) fn imports(module: &[u8]) -> Result<Vec<String>> {
    let mut rest = module
        .strip_prefix(MAGIC_AND_VERSION)
        .context("not a WebAssembly module")?;
    while !rest.is_empty() {
        let id = byte(&mut rest)?;
        let length = number(&mut rest)?;
        let section = take(&mut rest, length)?;
        if id == IMPORT_SECTION {
            return import_section(section);
        }
    }
    Ok(Vec::new())
}

fn import_section(mut section: &[u8]) -> Result<Vec<String>> {
    let count = number(&mut section)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let module = name(&mut section)?;
        let item = name(&mut section)?;
        match byte(&mut section)? {
            // A function: the number of its type.
            0 => {
                number(&mut section)?;
            }
            // A table: the type of its elements.
            1 => {
                byte(&mut section)?;
                limits(&mut section)?;
            }
            // A memory.
            2 => limits(&mut section)?,
            // A global: its type and whether it can change.
            3 => {
                take(&mut section, 2)?;
            }
            kind => bail!("import {module}.{item} is of unknown kind {kind}"),
        }
        found.push(format!("{module}.{item}"));
    }
    ensure!(
        section.is_empty(),
        "the import section is longer than its imports"
    );
    Ok(found)
}

fn limits(from: &mut &[u8]) -> Result<()> {
    let has_maximum = byte(from)? & 1 == 1;
    number(from)?;
    if has_maximum {
        number(from)?;
    }
    Ok(())
}

fn name(from: &mut &[u8]) -> Result<String> {
    let length = number(from)?;
    Ok(String::from_utf8_lossy(take(from, length)?).into_owned())
}

/// An unsigned LEB128 number of at most 32 bits.
fn number(from: &mut &[u8]) -> Result<usize> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let next = byte(from)?;
        value |= u32::from(next & 0x7f).checked_shl(shift).unwrap_or(0);
        if next & 0x80 == 0 {
            return Ok(usize::try_from(value)?);
        }
    }
    bail!("a number is longer than five bytes")
}

fn byte(from: &mut &[u8]) -> Result<u8> {
    Ok(take(from, 1)?[0])
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = from
        .split_at_checked(length)
        .context("the module ends too early")?;
    *from = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(sections: &[u8]) -> Vec<u8> {
        [MAGIC_AND_VERSION, sections].concat()
    }

    #[test]
    fn imports_of_every_kind_are_found() {
        let section = [
            &[4][..],
            b"\x03env\x01f\x00\x07",                 // function
            b"\x03env\x01t\x01\x70\x01\x01\x80\x01", // table with a maximum of 128
            b"\x03env\x01m\x02\x00\x11",             // memory without a maximum
            b"\x03env\x01g\x03\x7f\x01",             // global
        ]
        .concat();
        let custom = [0, 2, 1, b'x'];
        let all = [
            &custom[..],
            &[IMPORT_SECTION, u8::try_from(section.len()).unwrap()],
            &section,
        ];
        assert_eq!(
            imports(&module(&all.concat())).unwrap(),
            ["env.f", "env.t", "env.m", "env.g"]
        );
    }

    #[test]
    fn a_module_without_imports_has_none() {
        assert!(imports(&module(&[])).unwrap().is_empty());
    }

    #[test]
    fn other_bytes_are_an_error() {
        assert!(imports(b"#!/bin/sh").is_err());
        assert!(imports(&module(&[IMPORT_SECTION, 9, 1])).is_err());
    }
}
