//! Whether a library's types fit this host's, and what that promises about libraries to come.
//!
//! It never opens a library; it reads what an open one declares.

use abi_stable::{
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::{AbiHeaderRef, RootModule, RootModuleError},
};

use super::ModuleError;

/// Takes a library's root module, if all that is reached from it fits.
///
/// The library stands where `abi_stable` expects the interface, and the host where it expects the
/// implementation: of the two, the interface may be the older one, and it is older libraries that
/// have to load.
pub(super) fn root_module<M: RootModule>(header: AbiHeaderRef) -> Result<M, ModuleError> {
    // The error's own text lists both headers byte by byte, and says no more.
    let header = header.upgrade().map_err(|_| {
        ModuleError::Header("it was built with another release of abi_stable".to_owned())
    })?;
    let Some(layout) = header.layout() else {
        return Err(ModuleError::Header(
            "the library does not describe its layout".to_owned(),
        ));
    };
    check_layout_compatibility_with_globals(layout, M::LAYOUT, &CheckingGlobals::new())
        .map_err(|errors| ModuleError::Layout(in_one_line(&errors.to_string())))?;
    // SAFETY: the layout that the library's header declares for its root module was found
    // compatible with `M` just above.
    unsafe { header.unchecked_layout::<M>() }
        .map_err(|error: RootModuleError| ModuleError::Constructor(error.to_string()))
}

/// What went wrong out of a report of many lines, as one line of a log. Before it the report describes
/// every type from the root on, thousands of lines of them.
fn in_one_line(report: &str) -> String {
    const MAX_CHARS: usize = 600;
    let errors = report.find("Error:").map_or(report, |at| &report[at..]);
    let line = errors.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
