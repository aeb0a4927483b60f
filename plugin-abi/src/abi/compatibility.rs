//! Whether a library's types fit this host's, and what that promises about libraries to come.
//!
//! It never opens a library; it reads what an open one declares.

use abi_stable::{
    abi_stability::abi_checking::{
        AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
    },
    library::{AbiHeaderRef, RootModule, RootModuleError},
    type_layout::TypeLayout,
};

use super::{
    ModuleError,
    difference::{self, Library},
};

/// Takes a library's root module, if all that is reached from it fits.
///
/// `abi_stable` compares an interface with an implementation, of which the interface may be the
/// older: the implementation has all that the interface knows, and more at the end. An older
/// library stands as the interface against this host, a newer one as the implementation; each has
/// to be the one or the other as a whole. Both are sound, since whoever calls what was added first
/// looks whether the table that it has got goes on that far.
pub(super) fn root_module<M: RootModule>(header: AbiHeaderRef) -> Result<M, ModuleError> {
    // The error's own text lists both headers byte by byte, and says no more.
    let header = header.upgrade().map_err(|_| {
        ModuleError::Header("it was built with another release of abi_stable".to_owned())
    })?;
    let Some(library) = header.layout() else {
        return Err(ModuleError::Header(
            "the library does not describe its layout".to_owned(),
        ));
    };
    if let Err(as_older) = check(library, M::LAYOUT) {
        check(M::LAYOUT, library).map_err(|as_newer| {
            let described = match as_older.errors.len() <= as_newer.errors.len() {
                true => difference::describe(&as_older, Library::Interface),
                false => difference::describe(&as_newer, Library::Implementation),
            };
            ModuleError::Layout(described)
        })?;
    }
    // SAFETY: the layout that the library's header declares for its root module was found
    // compatible with `M` just above.
    unsafe { header.unchecked_layout::<M>() }
        .map_err(|error: RootModuleError| ModuleError::Constructor(error.to_string()))
}

fn check(
    interface: &'static TypeLayout,
    implementation: &'static TypeLayout,
) -> Result<(), AbiInstabilityErrors> {
    check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
}

#[cfg(test)]
mod tests;
