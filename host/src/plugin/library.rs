//! Opens a plugin's library and constructs the plugin in it.
//!
//! The operator's file is never opened: overwriting a mapped file in place kills the process, and
//! the same path opened twice is the old library. What is opened is a private copy of the bytes
//! that were verified. A library is never closed again: one thread or one thread-local destructor of
//! the plugin's would pin it anyway, and every pointer that outlived it would be a crash later.
//!
//! This is the only module of the host with hand-written `unsafe`.

use std::path::Path;

use libloading::os::unix::{Library as RawLibrary, RTLD_LOCAL, RTLD_NOW};
use plugin_abi::{
    abi::{
        self, AbiHeaderRef, Failure, Host, HostServices_TO, LoadArguments, ModuleError,
        PluginModuleRef, PluginObject, RResult, TD_Opaque,
    },
    export::ROOT_MODULE_SYMBOL,
};

use super::{
    schema::{Schema, SchemaError},
    services::Services,
};
use crate::shared_memory::{
    held::{Held, HeldFuture},
    threads::{Activity, enter},
};

/// A library whose ABI fits, mapped for the rest of the process's life.
#[derive(Clone, Copy)]
pub struct Library {
    module: PluginModuleRef,
    number: u64,
}

/// Why a library was not opened: the fault of who built it, except for [`LibraryError::Open`].
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The system's loader refused it.
    #[error("the system's loader refuses the library: {0}")]
    Open(#[source] libloading::Error),
    /// It exports no plugin.
    #[error(
        "the library exports no plugin: does its `src/lib.rs` end with `plugin_abi::export_plugin!(TYPE);`?"
    )]
    NoPlugin,
    /// Its ABI does not fit ours.
    #[error("{0}: build it with the plugin-abi of this host")]
    Abi(#[from] ModuleError),
    /// What its configuration type says of itself is no schema.
    #[error("the JSON Schema of its configuration type cannot be used: {0}")]
    Schema(#[from] SchemaError),
    /// Its configuration type could not say anything.
    #[error("the JSON Schema of its configuration type cannot be made: {0}")]
    NoSchema(Failure),
    /// Its constructor or `on_load` failed.
    #[error("the plugin did not load: {0}")]
    Load(Failure),
    /// It took too long.
    #[error("the plugin had not loaded after {0} s")]
    Slow(u64),
}

impl Library {
    /// Opens a private copy of a library and checks its ABI. This runs the library's constructors.
    /// What is made of it is the generation of this number
    /// ([`Generation::next_number`](super::registry::Generation::next_number)).
    ///
    /// # Errors
    /// See [`LibraryError`].
    #[allow(unsafe_code, reason = "opening a library and reading a symbol of it")]
    pub fn open(private_copy: &Path, number: u64) -> Result<Self, LibraryError> {
        let _stay = enter(number, Activity::Open);
        // SAFETY: running the constructors of native code can do anything; that is what operators
        // accept by installing a plugin (docs/abi.md, trust model). The file is a private copy that
        // nobody writes to, so that the mapping stays what it is.
        let library = unsafe { RawLibrary::open(Some(private_copy), RTLD_NOW | RTLD_LOCAL) }
            .map_err(LibraryError::Open)?;
        let header = {
            // SAFETY: `export_plugin!` exports under this name a static `LibHeader`, to which
            // `AbiHeaderRef` is a pointer; its magic bytes are checked before anything else is read.
            let symbol = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_SYMBOL.as_bytes()) };
            *symbol.map_err(|_| LibraryError::NoPlugin)?
        };
        let module = abi::module_of(header)?;
        // Never unmapped: see the module.
        std::mem::forget(library);
        Ok(Self { module, number })
    }

    /// What the library itself says a route's configuration has to look like; none where it says
    /// nothing, or was built before it could. Nothing is constructed for that.
    ///
    /// # Errors
    /// It says something that is no schema.
    pub fn config_schema(&self) -> Result<Option<Schema>, LibraryError> {
        let Some(config_schema) = self.module.config_schema() else {
            return Ok(None);
        };
        let _stay = enter(self.number, Activity::Load);
        match config_schema() {
            RResult::ROk(text) if text.is_empty() => Ok(None),
            RResult::ROk(text) => Ok(Some(Schema::from_text(&text)?)),
            RResult::RErr(failure) => Err(LibraryError::NoSchema(failure)),
        }
    }

    /// Constructs the plugin and runs its `on_load`.
    ///
    /// # Errors
    /// [`LibraryError::Load`] with what the plugin says.
    pub async fn create(
        &self,
        services: Services,
        settings: &serde_json::Value,
    ) -> Result<Held<PluginObject>, LibraryError> {
        let arguments = LoadArguments {
            name: services.plugin().as_str().into(),
            version: services.version().to_string().into(),
            settings: settings.to_string().into_bytes().into(),
        };
        let host: Host = HostServices_TO::from_value(services, TD_Opaque);
        let creating = {
            let _stay = enter(self.number, Activity::Load);
            (self.module.create())(host, arguments)
        };
        match HeldFuture::new(creating, self.number, Activity::Load).await {
            RResult::ROk(plugin) => Ok(Held::new(plugin, self.number)),
            RResult::RErr(failure) => Err(LibraryError::Load(failure)),
        }
    }
}
