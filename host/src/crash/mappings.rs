//! Where code lies in this process: what a supervisor needs to know about addresses when the process
//! is gone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A range of addresses with code of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// Where the file's own addresses begin: the offset of an address from here is what tools such
    /// as `addr2line` take.
    pub base: u64,
    /// The file, as it was mapped; it may be gone.
    pub path: PathBuf,
}

impl Mapping {
    /// Whether an address lies in it.
    pub fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// The code that is mapped into this process now. To be told to the supervisor after each load.
///
/// # Errors
/// The system does not tell.
pub fn mappings() -> io::Result<Vec<Mapping>> {
    // Not as text: a path may be any bytes.
    let maps = fs::read("/proc/self/maps")?;
    Ok(parse(&String::from_utf8_lossy(&maps)))
}

/// The path of a file as [`mappings`] names it: without links, and for a descriptor's path that of
/// the file behind it.
///
/// # Errors
/// There is no such file.
pub(super) fn as_mapped(path: &Path) -> io::Result<PathBuf> {
    let path = match path.starts_with("/proc/self/fd") {
        true => fs::read_link(path)?,
        false => fs::canonicalize(path)?,
    };
    Ok(PathBuf::from(as_it_was(&path.to_string_lossy())))
}

/// The kernel marks a file that is gone.
fn as_it_was(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

fn parse(maps: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut base: (&str, u64) = ("", 0);
    for line in maps.lines() {
        let Some((range, access, offset, path)) = fields(line) else {
            continue;
        };
        if offset == 0 || base.0 != path {
            base = (path, range.0);
        }
        if access.contains('x') {
            found.push(Mapping {
                start: range.0,
                end: range.1,
                base: base.1,
                path: PathBuf::from(path),
            });
        }
    }
    found
}

/// Range, access, offset and path of a line; none where no file is mapped there.
fn fields(line: &str) -> Option<((u64, u64), &str, u64, &str)> {
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (range, rest) = line.split_once(' ')?;
    let (access, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let path = as_it_was(&rest[rest.find('/')?..]);
    let (start, end) = range.split_once('-')?;
    Some(((hex(start)?, hex(end)?), access, hex(offset)?, path))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn code_is_found_with_its_file_and_where_that_begins() {
        let maps = "\
55a0-55b0 r--p 00000000 08:01 42                         /usr/bin/host
55b0-55c0 r-xp 00010000 08:01 42                         /usr/bin/host
7f00-7f10 r--p 00000000 00:05 7                          /memfd:say-1.0.0 x.so (deleted)
7f10-7f20 r-xp 00010000 00:05 7                          /memfd:say-1.0.0 x.so (deleted)
7f20-7f30 rw-p 00000000 00:00 0
7ff0-7fff r-xp 00000000 00:00 0                          [vdso]
nonsense
";
        let mapping = |start, end, base, path: &str| Mapping {
            start,
            end,
            base,
            path: path.into(),
        };
        let expected = [
            mapping(0x55b0, 0x55c0, 0x55a0, "/usr/bin/host"),
            mapping(0x7f10, 0x7f20, 0x7f00, "/memfd:say-1.0.0 x.so"),
        ];
        assert_eq!(parse(maps), expected);
        assert!(expected[0].holds(0x55b0) && !expected[0].holds(0x55c0));
    }

    #[test]
    fn this_very_function_is_mapped_from_this_program() {
        let program = as_mapped(&std::env::current_exe().unwrap()).unwrap();
        let here = this_very_function_is_mapped_from_this_program as fn() as usize as u64;
        let mappings = mappings().unwrap();
        let mapping = mappings.iter().find(|it| it.holds(here)).unwrap();
        assert_eq!(mapping.path, program);
        assert!(mapping.base < mapping.start);
    }

    #[test]
    fn a_file_in_memory_is_known_by_the_name_that_it_is_mapped_with() {
        use std::os::fd::AsRawFd;
        let file = rustix::fs::memfd_create("say.so", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mapped = as_mapped(Path::new(&path)).unwrap();
        assert_eq!(mapped, Path::new("/memfd:say.so"));
    }
}
