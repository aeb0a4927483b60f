//! Names of functions, out of the symbol tables of the files that were mapped. Only what is needed of
//! a file is read; one that is gone, or in disorder, gives no names.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use object::{
    LittleEndian, ReadCache, ReadRef,
    elf::{FileHeader64, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC},
    read::elf::{FileHeader as _, Sym as _, SymbolTable},
};

/// Characters of a function's name that are shown.
const LONGEST_NAME: usize = 200;

/// A function, and how far behind its start an address lies.
pub(super) type Symbol = (String, u64);

/// The functions that these addresses lie in, each relative to the file's start.
pub(super) fn functions_at(path: &Path, addresses: &[u64]) -> Vec<Option<Symbol>> {
    let nothing = || vec![None; addresses.len()];
    let Some(file) = open(path) else {
        return nothing();
    };
    let data = ReadCache::new(file);
    read(&data, addresses).unwrap_or_else(|_| nothing())
}

fn open(path: &Path) -> Option<File> {
    // The path comes from a process that ran plugins: whatever stands there, opening it never waits.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_wait)
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

fn read<'data, R: ReadRef<'data>>(
    data: R,
    addresses: &[u64],
) -> object::Result<Vec<Option<Symbol>>> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut found = vec![None; addresses.len()];
    // The full table, where it was not stripped; what a library exports in any case.
    for table in [SHT_SYMTAB, SHT_DYNSYM] {
        let table = sections.symbols(endian, data, table)?;
        for (address, found) in addresses.iter().zip(&mut found) {
            if found.is_none() {
                *found = find(&table, endian, *address);
            }
        }
    }
    Ok(found)
}

fn find<'data, R: ReadRef<'data>>(
    table: &SymbolTable<'data, FileHeader64<LittleEndian>, R>,
    endian: LittleEndian,
    address: u64,
) -> Option<Symbol> {
    let symbol = table.iter().find(|symbol| {
        let start = symbol.st_value(endian);
        symbol.st_type() == STT_FUNC
            && (start..start.saturating_add(symbol.st_size(endian))).contains(&address)
    })?;
    let name = String::from_utf8_lossy(symbol.name(endian, table.strings()).ok()?);
    // Without the hash that the compiler adds.
    let name = format!("{:#}", rustc_demangle::demangle(&name));
    let name = name.chars().take(LONGEST_NAME).collect();
    Some((name, address - symbol.st_value(endian)))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::{super::mappings, *};

    #[test]
    fn a_function_of_this_program_is_found_by_an_address_in_it() {
        let here = a_function_of_this_program_is_found_by_an_address_in_it as fn() as usize as u64;
        let mappings = mappings().unwrap();
        let mapping = mappings.iter().find(|it| it.holds(here)).unwrap();
        let at = here - mapping.base + 1;
        let found = functions_at(&mapping.path, &[at, 0]);
        let (name, offset) = found[0].clone().unwrap();
        assert!(name.contains("a_function_of_this_program"), "{name}");
        assert_eq!((offset, &found[1]), (1, &None));
    }

    #[test]
    fn what_is_no_library_has_no_functions() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, "\u{7f}ELF and no more").unwrap();
        for path in [
            text.as_path(),
            Path::new("/dev/zero"),
            Path::new("/nowhere"),
        ] {
            assert_eq!(functions_at(path, &[1, 2]), [None, None], "{path:?}");
        }
    }
}
