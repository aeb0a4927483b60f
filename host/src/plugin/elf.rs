//! Judges a plugin's library while it is still only data.
//!
//! A library that the dynamic loader maps may run code before anybody could ask what it is, and
//! one that breaks the ABI takes the process along. So everything that can be known from its
//! bytes is asked first: is it whole, is it for this machine, did `export_plugin!` make it, does
//! its ABI fit. This module takes bytes and answers; it never reads a file and never loads one.

use std::cmp::Ordering;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{
    Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _,
};
use plugin_abi::build_info::{
    ABI_VERSION, BuildInfo, BuildInfoError, FEATURES, NEED_SECTION, SYMBOL,
};
use plugin_abi::export::ROOT_MODULE_SYMBOL;
use semver::Version;

/// Size of a library, at most, in bytes: it is held in memory until it is loaded.
pub const MAX_LIBRARY_BYTES: u64 = 512 << 20;

/// Size of the exported build information, at most, in bytes. A larger one is not ours.
pub const MAX_BUILD_INFO_BYTES: u64 = 64 << 10;

/// Why a library cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file holds nothing.
    #[error("the library is empty")]
    Empty,
    /// Something else than an ELF file.
    #[error("it is not an ELF library but {looks_like}")]
    NotElf {
        /// What it seems to be.
        looks_like: &'static str,
    },
    /// Parts that its headers speak of are missing.
    #[error("it is cut short or damaged: its headers speak of {needs} bytes, it has {has}")]
    CutShort {
        /// Bytes that are there.
        has: u64,
        /// Bytes that there should be, at least.
        needs: u64,
    },
    /// An ELF file that contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Built for another processor.
    #[error("it is built for {found}, this machine is {host}")]
    OtherMachine {
        /// What the library is for.
        found: String,
        /// What this program is for.
        host: &'static str,
    },
    /// ELF, but nothing that can be loaded.
    #[error("it is not a shared library but {found}")]
    NotSharedLibrary {
        /// What it is.
        found: &'static str,
    },
    /// Linked against the C library musl; this program is linked against glibc, and one process
    /// cannot hold both.
    #[error("it is linked against musl, this program against glibc")]
    Musl,
    /// Made by the Go compiler.
    #[error("it is a Go library")]
    GoLibrary,
    /// A shared library, but no plugin.
    #[error("it is not a plugin: it does not export `{symbol}`")]
    NoEntry {
        /// The first symbol that is missing.
        symbol: &'static str,
    },
    /// It exports build information in a form that this program does not know.
    #[error("its embedded facts cannot be read: {0}")]
    UnreadableFacts(BuildInfoError),
    /// Built with `panic = "abort"`: its first panic would end this process.
    #[error("it is built with `panic = \"{strategy}\"`: its first panic would end the host")]
    AbortsOnPanic {
        /// What it says instead of `unwind`.
        strategy: String,
    },
    /// Its ABI version is not a version.
    #[error("its ABI version `{found}` is not a semantic version")]
    UnreadableAbi {
        /// What stands there.
        found: String,
    },
    /// Another major version of the ABI.
    #[error("it speaks ABI {found}, this host speaks ABI {host}")]
    OtherAbi {
        /// The library's.
        found: Version,
        /// This program's.
        host: Version,
    },
    /// It uses something of the ABI that this program does not have.
    #[error(
        "it is built for ABI {found} and uses `{}` of it, which this host, of ABI {host}, does not have",
        needs.join("`, `")
    )]
    LacksFeatures {
        /// What it uses and this program does not have.
        needs: Vec<String>,
        /// The library's.
        found: Version,
        /// This program's.
        host: Version,
    },
}

impl ElfError {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Empty | Self::CutShort { .. } | Self::Damaged(_) => {
                "copy the library again, under another name first, then rename it into place".into()
            }
            Self::NotElf { .. } | Self::NotSharedLibrary { .. } => {
                "write `crate-type = [\"cdylib\"]` under `[lib]` in the plugin's Cargo.toml, run `cargo build --release`, and put the `.so` file from `target/release` here".into()
            }
            Self::OtherMachine { host, .. } => format!(
                "build it for this machine (`cargo build --release --target {host}-unknown-linux-gnu`) and put that library here",
                host = host.replace('-', "_")
            ),
            Self::Musl => format!(
                "build it with `cargo build --release --target {}-unknown-linux-gnu`; a host for musl could not load libraries",
                HOST.1.replace('-', "_")
            ),
            Self::GoLibrary => {
                "Go plugins cannot be loaded: write it anew in Rust, with the crate `plugin-abi`".into()
            }
            Self::NoEntry { .. } => "end the plugin's `src/lib.rs` with `plugin_abi::export_plugin!(TYPE);`, where TYPE is the type that implements `Plugin`, and build it again".into(),
            Self::UnreadableFacts(_) | Self::UnreadableAbi { .. } => {
                "build it again with the release of the crate `plugin-abi` that fits this host".into()
            }
            Self::AbortsOnPanic { .. } => "remove `panic = \"abort\"` from the profile in the Cargo.toml of the plugin's workspace (or `-C panic=abort` from RUSTFLAGS), and build it again".into(),
            Self::OtherAbi { found, host } => match found.major.cmp(&host.major) {
                Ordering::Less => format!(
                    "write `plugin-abi = \"{}\"` in the plugin's Cargo.toml and build it again",
                    host.major
                ),
                _ => "upgrade this host, or use an older version of the plugin".into(),
            },
            Self::LacksFeatures { .. } => {
                "upgrade this host, or use an older version of the plugin".into()
            }
        }
    }
}

/// Judges the bytes of a library and returns what it says about itself.
///
/// `Ok` means: whole, for this machine, a plugin, its ABI one that this program speaks. It does
/// not mean that loading cannot fail; a library that it needs may be missing.
///
/// # Errors
/// The first reason why it cannot be loaded.
pub fn inspect(library: &[u8]) -> Result<BuildInfo, ElfError> {
    let image = Image::open(library)?;
    image.require_this_c_library()?;
    let facts = image
        .symbol(SYMBOL)?
        .ok_or_else(|| image.no_entry(SYMBOL))?;
    image
        .symbol(ROOT_MODULE_SYMBOL)?
        .ok_or_else(|| image.no_entry(ROOT_MODULE_SYMBOL))?;
    let mut info = BuildInfo::parse(image.data(facts)?).map_err(ElfError::UnreadableFacts)?;
    info.needs = image.needs()?;
    if info.panic != "unwind" {
        return Err(ElfError::AbortsOnPanic {
            strategy: info.panic,
        });
    }
    check_abi(&info.abi_version, &info.needs, &host_abi(), FEATURES)?;
    Ok(info)
}

/// Processor and C library that a library is built for, as in target triples, whatever this machine
/// is.
///
/// # Errors
/// It is no library, or for a processor that has no name here.
pub fn built_for(library: &[u8]) -> Result<(&'static str, &'static str), ElfError> {
    recognise(library)?;
    let header = FileHeader64::<LittleEndian>::parse(library).map_err(damaged)?;
    let image = Image::parse(library, header)?;
    image.require_whole()?;
    let processor = match header.e_machine(LE) {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv64",
        elf::EM_S390 => "s390x",
        found => {
            return Err(ElfError::OtherMachine {
                found: machine_name(found),
                host: HOST.1,
            });
        }
    };
    match image.require_this_c_library() {
        Ok(()) => Ok((processor, "gnu")),
        Err(ElfError::Musl) => Ok((processor, "musl")),
        Err(error) => Err(error),
    }
}

/// Bytes of memory that a library occupies when it is mapped, in whole pages; those of the file where
/// it is none that [`inspect`] takes.
#[must_use]
pub fn mapped_bytes(library: &[u8]) -> u64 {
    const PAGE: u64 = 4096;
    let Ok(image) = Image::open(library) else {
        return library.len() as u64;
    };
    let loaded = image.segments.iter();
    loaded
        .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
        .map(|segment| {
            let start = segment.p_vaddr(LE) / PAGE * PAGE;
            let end = segment.p_vaddr(LE).saturating_add(segment.p_memsz(LE));
            (end.saturating_sub(start))
                .div_ceil(PAGE)
                .saturating_mul(PAGE)
        })
        .fold(0, u64::saturating_add)
}

/// The ABI version that this program speaks.
#[must_use]
pub fn host_abi() -> Version {
    Version::parse(ABI_VERSION).expect("the crate's own ABI version is a semantic version")
}

/// A host runs what has its own major version, as long as it has what that uses. Items are only ever
/// added at the end of the ABI: an older library finds all it knows, and a newer one, too, where it
/// uses nothing newer.
fn check_abi(
    found: &str,
    needs: &[String],
    host: &Version,
    features: &[&str],
) -> Result<(), ElfError> {
    let found = Version::parse(found).map_err(|_| ElfError::UnreadableAbi {
        found: found.to_owned(),
    })?;
    let host = host.clone();
    if found.major != host.major {
        return Err(ElfError::OtherAbi { found, host });
    }
    let needs: Vec<_> = needs
        .iter()
        .filter(|need| !features.contains(&need.as_str()))
        .cloned()
        .collect();
    if needs.is_empty() {
        Ok(())
    } else {
        Err(ElfError::LacksFeatures { needs, found, host })
    }
}

/// The processor that this program is built for, as ELF names it.
const HOST: (elf::Machine, &str) = if cfg!(target_arch = "aarch64") {
    (elf::EM_AARCH64, "aarch64")
} else {
    (elf::EM_X86_64, "x86-64")
};

const LE: LittleEndian = LittleEndian;

/// A whole ELF shared library for this machine.
struct Image<'data> {
    bytes: &'data [u8],
    segments: &'data [elf::ProgramHeader64<LittleEndian>],
    sections: object::read::elf::SectionTable<'data, FileHeader64<LittleEndian>>,
}

impl<'data> Image<'data> {
    fn open(bytes: &'data [u8]) -> Result<Self, ElfError> {
        recognise(bytes)?;
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(damaged)?;
        let found = header.e_machine(LE);
        if found != HOST.0 {
            return Err(ElfError::OtherMachine {
                found: machine_name(found),
                host: HOST.1,
            });
        }
        let image = Self::parse(bytes, header)?;
        image.require_whole()?;
        match header.e_type(LE) {
            elf::ET_DYN if image.is_program()? => {
                Err(ElfError::NotSharedLibrary { found: "a program" })
            }
            elf::ET_DYN => Ok(image),
            elf::ET_EXEC => Err(ElfError::NotSharedLibrary { found: "a program" }),
            elf::ET_REL => Err(ElfError::NotSharedLibrary {
                found: "an object file",
            }),
            elf::ET_CORE => Err(ElfError::NotSharedLibrary {
                found: "a core dump",
            }),
            _ => Err(ElfError::NotSharedLibrary {
                found: "an unknown kind of ELF file",
            }),
        }
    }

    /// Reads the tables that the header speaks of, once it is certain that they are there.
    fn parse(
        bytes: &'data [u8],
        header: &'data FileHeader64<LittleEndian>,
    ) -> Result<Self, ElfError> {
        let tables = [
            (
                header.e_phoff(LE),
                header.e_phnum(LE),
                header.e_phentsize(LE),
            ),
            (
                header.e_shoff(LE),
                header.e_shnum(LE),
                header.e_shentsize(LE),
            ),
        ];
        for (offset, entries, size) in tables {
            require_bytes(
                bytes,
                offset.saturating_add(u64::from(entries) * u64::from(size)),
            )?;
        }
        Ok(Self {
            bytes,
            segments: header.program_headers(LE, bytes).map_err(damaged)?,
            sections: header.sections(LE, bytes).map_err(damaged)?,
        })
    }

    /// Everything that segments and sections speak of must be in the file: a copy that is still
    /// under way has its headers long before its end.
    fn require_whole(&self) -> Result<(), ElfError> {
        let segments = self.segments.iter().map(|segment| segment.file_range(LE));
        let sections = self
            .sections
            .iter()
            .filter_map(|section| section.file_range(LE));
        let needs = segments
            .chain(sections)
            .map(|(offset, size)| offset.saturating_add(size))
            .max();
        require_bytes(self.bytes, needs.unwrap_or_default())
    }

    /// A position-independent program has the type of a shared library, but says so elsewhere.
    fn is_program(&self) -> Result<bool, ElfError> {
        let dynamic = self.dynamic()?;
        Ok(dynamic
            .iter()
            .any(|entry| entry.tag(LE) == elf::DT_FLAGS_1 && entry.val(LE) & elf::DF_1_PIE.0 != 0))
    }

    fn dynamic(&self) -> Result<&'data [elf::Dyn64<LittleEndian>], ElfError> {
        Ok(self
            .sections
            .dynamic_table(LE, self.bytes)
            .map_err(damaged)?
            .dynamics())
    }

    fn require_this_c_library(&self) -> Result<(), ElfError> {
        let table = self
            .sections
            .dynamic_table(LE, self.bytes)
            .map_err(damaged)?;
        for entry in table.iter() {
            if entry.tag == elf::DT_NEEDED {
                let needed = table.string(entry).map_err(damaged)?;
                // musl's own name, and the one that musl's linker scripts leave behind.
                if needed.starts_with(b"libc.musl-") || needed == b"libc.so" {
                    return Err(ElfError::Musl);
                }
            }
        }
        Ok(())
    }

    /// The features of the ABI that the library uses: each has marked it with a section.
    fn needs(&self) -> Result<Vec<String>, ElfError> {
        let mut needs = Vec::new();
        for section in self.sections.iter() {
            let name = self.sections.section_name(LE, section).map_err(damaged)?;
            if let Some(need) = name.strip_prefix(NEED_SECTION.as_bytes()) {
                needs.push(String::from_utf8_lossy(need).into_owned());
            }
        }
        Ok(needs)
    }

    /// Where an exported symbol lies: address and size.
    fn symbol(&self, name: &str) -> Result<Option<(u64, u64)>, ElfError> {
        let symbols = self
            .sections
            .symbols(LE, self.bytes, elf::SHT_DYNSYM)
            .map_err(damaged)?;
        for symbol in symbols.iter().filter(|symbol| !symbol.is_undefined(LE)) {
            if symbols.symbol_name(LE, symbol).map_err(damaged)? == name.as_bytes() {
                return Ok(Some((symbol.st_value(LE), symbol.st_size(LE))));
            }
        }
        Ok(None)
    }

    fn no_entry(&self, symbol: &'static str) -> ElfError {
        let go = self
            .sections
            .section_by_name(LE, b".go.buildinfo")
            .is_some();
        if go {
            ElfError::GoLibrary
        } else {
            ElfError::NoEntry { symbol }
        }
    }

    /// What the file holds for an address range, as the dynamic loader would map it.
    fn data(&self, (address, size): (u64, u64)) -> Result<&'data [u8], ElfError> {
        if size > MAX_BUILD_INFO_BYTES {
            return Err(ElfError::Damaged(format!("`{SYMBOL}` claims {size} bytes")));
        }
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
        {
            if let Ok(Some(data)) = segment.data_range(LE, self.bytes, address, size) {
                return Ok(data);
            }
        }
        Err(ElfError::Damaged(format!(
            "`{SYMBOL}` lies outside of what is loaded"
        )))
    }
}

/// Is it an ELF file of the kind that this machine has at all (64 bits, little endian)?
fn recognise(bytes: &[u8]) -> Result<(), ElfError> {
    const HEADER_BYTES: u64 = size_of::<FileHeader64<LittleEndian>>() as u64;
    if bytes.is_empty() {
        return Err(ElfError::Empty);
    }
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(ElfError::NotElf {
            looks_like: kind_of(bytes),
        });
    }
    require_bytes(bytes, HEADER_BYTES)?;
    let (class, encoding) = (elf::FileClass(bytes[4]), elf::DataEncoding(bytes[5]));
    if class != elf::ELFCLASS64 || encoding != elf::ELFDATA2LSB {
        let bits = if class == elf::ELFCLASS32 {
            "32 bits"
        } else {
            "64 bits"
        };
        let order = if encoding == elf::ELFDATA2MSB {
            "big endian"
        } else {
            "little endian"
        };
        return Err(ElfError::OtherMachine {
            found: format!("{bits}, {order}"),
            host: HOST.1,
        });
    }
    Ok(())
}

fn kind_of(bytes: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 8] = [
        (b"!<arch>\n", "a static archive (`.a`, `.rlib`)"),
        (b"\xcf\xfa\xed\xfe", "a macOS library"),
        (b"\xca\xfe\xba\xbe", "a macOS or Java file"),
        (b"MZ", "a Windows library"),
        (b"\0asm", "a WebAssembly module"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer: run `git lfs pull`",
        ),
        (b"\x1f\x8b", "a gzip archive"),
        (b"PK", "a zip archive"),
    ];
    let known = KINDS.iter().find(|(magic, _)| bytes.starts_with(magic));
    known.map_or("some other kind of file", |(_, kind)| kind)
}

fn machine_name(machine: elf::Machine) -> String {
    let name = match machine {
        elf::EM_X86_64 => "x86-64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "POWER",
        elf::EM_S390 => "s390x",
        elf::EM_LOONGARCH => "LoongArch",
        other => return format!("another processor (ELF machine {})", other.0),
    };
    name.to_owned()
}

fn require_bytes(bytes: &[u8], needs: u64) -> Result<(), ElfError> {
    let has = bytes.len() as u64;
    if needs > has {
        Err(ElfError::CutShort { has, needs })
    } else {
        Ok(())
    }
}

fn damaged(error: object::read::Error) -> ElfError {
    ElfError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests;
