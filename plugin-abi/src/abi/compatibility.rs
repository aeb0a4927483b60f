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
    let header = header
        .upgrade()
        .map_err(|error| ModuleError::Header(error.to_string()))?;
    let Some(layout) = header.layout() else {
        return Err(ModuleError::Header(
            "the library does not describe its layout".to_owned(),
        ));
    };
    check_layout_compatibility_with_globals(layout, M::LAYOUT, &CheckingGlobals::new())
        .map_err(|errors| ModuleError::Layout(errors.to_string()))?;
    // SAFETY: the layout that the library's header declares for its root module was found
    // compatible with `M` just above.
    unsafe { header.unchecked_layout::<M>() }
        .map_err(|error: RootModuleError| ModuleError::Constructor(error.to_string()))
}

#[cfg(test)]
mod tests;
