//! The binary contract between host and plugin library: every type that crosses it, and nothing else.
//!
//! This is the only module that knows `abi_stable` (and `async-ffi`, which carries futures across);
//! authors never see a type of it. Its rules (`docs/abi.md` has the policy):
//!
//! - Items are only ever added at the end of a trait or a prefix type, never changed or reordered;
//!   a snapshot test makes each change a visible diff.
//! - Closed sets that may grow ([`List`], [`Text`], [`AskStatus`], [`ValueStatus`], [`SpawnStatus`],
//!   [`MetricKind`], [`LogLevel`] and others) are numbers with names, not enums, so that a newer library can
//!   meet an older host.
//! - Nothing unwinds across: the plugin's side catches inside ([`crate::export`]), the host's side
//!   does not panic.
//! - Who creates an object owns it, and its pointer carries its own destructor; a reference that is
//!   passed in is valid until the function returns, one that is returned as long as the object.
//!
//! It never performs I/O and never opens a library: the host does, and hands the symbol to
//! [`module_of`].

mod compatibility;
mod difference;
mod execute;
mod http;
mod layout;

use std::{fmt, sync::atomic::AtomicU64};

use abi_stable::{
    StableAbi, library::RootModule, package_version_strings, sabi_types::VersionStrings,
};

pub use abi_stable::{
    erased_types::{TD_CanDowncast, TD_Opaque},
    library::AbiHeaderRef,
    sabi_trait,
    std_types::{RArc, RBox, ROption, RResult, RSlice, RStr, RString, RVec},
};
pub use async_ffi::FfiFuture;
pub use execute::{
    ContextObject, ExecuteFailure, ExecuteFailureKind, HostContext, HostContext_TO, HttpText,
    RespondStatus,
};
pub use http::{
    HttpFailure, HttpFailureKind, IncomingObject, IncomingResponse, IncomingResponse_TO,
    OutgoingObject, OutgoingRequest, OutgoingRequest_TO,
};

/// The root module that a plugin's library exports: everything else is reached from it.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
#[sabi(missing_field(panic))]
pub struct PluginModule {
    /// Constructs the plugin and runs its `on_load`. The host calls it once per library.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(Host, LoadArguments) -> FfiFuture<RResult<PluginObject, Failure>>,

    /// The JSON Schema of a route's configuration, as JSON text; empty where the plugin has none.
    /// Runs nothing of the plugin but what its configuration type says of itself. Since ABI 1.1.
    #[sabi(missing_field(option))]
    pub config_schema: extern "C" fn() -> RResult<RString, Failure>,
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "plugin";
    const NAME: &'static str = "plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// What a plugin is told when it is loaded. Owned by the plugin from then on.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct LoadArguments {
    /// The name that routes use.
    pub name: RString,
    /// The version that serves, from its metadata.
    pub version: RString,
    /// The operator's settings merged over the metadata's defaults: a JSON object.
    pub settings: RVec<u8>,
}

/// A constructed and loaded plugin.
#[sabi_trait]
pub trait AbiPlugin: Send + Sync + 'static {
    /// Parses a route's configuration. Called off the event loops; may take its time.
    fn configure(&self, raw: RSlice<'_, u8>) -> RResult<ConfiguredObject, Failure>;

    /// Runs the plugin's `on_unload`. Called at most once, after the last call has ended.
    #[sabi(last_prefix_field)]
    fn unload(&self) -> FfiFuture<()>;

    /// Since 1.1: what the next generation may know of this one; nothing where that is not wanted.
    /// Called off the event loops, when this generation gets no new calls.
    fn save_state(&self) -> RResult<ROption<StateBlob>, Failure> {
        RResult::ROk(ROption::RNone)
    }

    /// Since 1.1: takes what an earlier generation has saved. Called off the event loops, while
    /// calls run.
    fn restore_state(&self, state: StateBlob) -> RResult<(), Failure> {
        let _ = state;
        RResult::ROk(())
    }

    /// Since 1.2: executes what is asked for by name. The context belongs to the future until it
    /// returns it; it went down with the future where that failed.
    fn execute(&self, context: ContextObject) -> FfiFuture<RResult<ContextObject, ExecuteFailure>> {
        drop(context);
        FfiFuture::new(async { RResult::RErr(ExecuteFailure::unsupported()) })
    }
}

/// Owned handle of a plugin; its drop runs inside the library.
pub type PluginObject = AbiPlugin_TO<RBox<()>>;

/// A plugin together with one parsed configuration: what a chain is made of.
#[sabi_trait]
pub trait AbiConfigured: Send + Sync + 'static {
    /// Runs the request phase. The call belongs to the future until it returns it.
    fn request(&self, call: CallObject) -> FfiFuture<Outcome>;

    /// Runs the response phase. The call belongs to the future until it returns it.
    #[sabi(last_prefix_field)]
    fn response(&self, call: CallObject) -> FfiFuture<Outcome>;

    /// Since 1.1: as [`AbiPlugin::save_state`], of this configuration.
    fn save_state(&self) -> RResult<ROption<StateBlob>, Failure> {
        RResult::ROk(ROption::RNone)
    }

    /// Since 1.1: as [`AbiPlugin::restore_state`], of this configuration.
    fn restore_state(&self, state: StateBlob) -> RResult<(), Failure> {
        let _ = state;
        RResult::ROk(())
    }
}

/// Owned handle of a configured plugin; its drop runs inside the library.
pub type ConfiguredObject = AbiConfigured_TO<RBox<()>>;

/// What one generation leaves to the next, in a format of the plugin's own.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct StateBlob {
    /// The plugin's number of the format.
    pub version: u32,
    /// The state; the host bounds its length.
    pub data: RVec<u8>,
}

/// How one plugin's part of a call ended.
#[repr(C)]
#[derive(StableAbi)]
pub struct Outcome {
    /// The call with the plugin's changes; absent where the plugin panicked, since then it went
    /// down with the future.
    pub call: ROption<CallObject>,
    /// What the plugin decided.
    pub verdict: Verdict,
}

/// What a plugin decided.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the next plugin.
    Continue,
    /// Answer the client with this, run no further plugin (request phase only).
    Stop(ReplyParts),
    /// The plugin returned an error or panicked.
    Failed(Failure),
}

/// An answer to the client, as a plugin gave it; the host checks it.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyParts {
    /// HTTP status.
    pub status: u16,
    /// Header names and values in order; repeated names are repeated.
    pub headers: RVec<OwnedField>,
    /// Body, may be empty.
    pub body: RVec<u8>,
}

/// A header that has left the plugin.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct OwnedField {
    /// Name, in the case that the plugin wrote.
    pub name: RVec<u8>,
    /// Value.
    pub value: RVec<u8>,
}

/// Why a plugin's part of something failed.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// True where the plugin panicked, false where it returned an error.
    pub panicked: bool,
    /// The error with its causes, or the panic's message and place.
    pub message: RString,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.panicked {
            write!(f, "panicked: {}", self.message)
        } else {
            f.write_str(&self.message)
        }
    }
}

/// A list of names and values that belongs to a call.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct List(pub u8);

impl List {
    /// The call's own headers: the request's in the request phase, the response's in the response phase.
    pub const HEADERS: Self = Self(0);
    /// The query's arguments (request phase).
    pub const ARGUMENTS: Self = Self(1);
    /// Headers to add to the client's response (request phase).
    pub const RESPONSE_HEADERS: Self = Self(2);
}

/// A single text that belongs to a call.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text(pub u8);

impl Text {
    /// The request's method, in upper case (request phase).
    pub const METHOD: Self = Self(0);
    /// The request's path without the query (request phase).
    pub const PATH: Self = Self(1);
    /// The client's address: 4 or 16 bytes in network order, or none (request phase).
    pub const CLIENT_ADDRESS: Self = Self(2);
}

/// One entry of a [`List`], borrowed from the call.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Name.
    pub name: RSlice<'a, u8>,
    /// Value; absent for an argument without `=`.
    pub value: ROption<RSlice<'a, u8>>,
}

/// A question to the gateway.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub enum Question<'a> {
    /// A variable of the gateway, by name.
    Variable(RSlice<'a, u8>),
    /// The request's body.
    RequestBody,
    /// The upstream's body (response phase).
    ResponseBody,
}

/// How a question ended.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskStatus(pub u8);

impl AskStatus {
    /// The answer can be read from the call.
    pub const ANSWERED: Self = Self(0);
    /// The body does not fit a frame; it was not asked for.
    pub const BODY_TOO_LARGE: Self = Self(1);
    /// The call has used up its number of questions.
    pub const TOO_MANY_QUESTIONS: Self = Self(2);
    /// The gateway cannot be asked any more: the call is over.
    pub const CALL_OVER: Self = Self(3);
    /// This question cannot be asked in this phase.
    pub const NOT_IN_THIS_PHASE: Self = Self(4);
    /// The host's memory for bodies is used up.
    pub const OUT_OF_MEMORY: Self = Self(5);
}

/// How changing or loading the values of a call ended.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueStatus(pub u8);

impl ValueStatus {
    /// It is done.
    pub const DONE: Self = Self(0);
    /// There are too many values, or they are too long: nothing has changed.
    pub const FULL: Self = Self(1);
    /// Nothing tells which request the call belongs to: `request_id` was not answered.
    pub const NOT_LINKED: Self = Self(2);
    /// The host keeps no values.
    pub const UNSUPPORTED: Self = Self(3);
}

/// One HTTP request or response on its way through a chain, as the host shows it to a plugin.
///
/// What a plugin reads includes the changes that it and the plugins before it made. The host
/// implements it; the plugin owns it while its future runs and gives it back in [`Outcome`].
#[sabi_trait]
pub trait HostCall: Send + Sync + 'static {
    /// The gateway's number of this call, for logs.
    fn id(&self) -> u32;

    /// The response's status (response phase; 0 in the request phase).
    fn status(&self) -> u16;

    /// Milliseconds until the host stops waiting for this plugin.
    fn milliseconds_left(&self) -> u64;

    /// One text of the call; empty where it has none.
    fn text(&self, text: Text) -> RSlice<'_, u8>;

    /// Number of entries of a list; 0 for a list that this call does not have.
    fn count(&self, list: List) -> usize;

    /// The entry at an index below [`HostCall::count`]; none beyond.
    fn at(&self, list: List, index: usize) -> ROption<Field<'_>>;

    /// Index of the first entry from `start` on with this name; ASCII case counts for arguments only.
    fn find(&self, list: List, name: RSlice<'_, u8>, start: usize) -> ROption<usize>;

    /// Sets the response's status (response phase).
    fn set_status(&mut self, status: u16);

    /// Sets the request's path (request phase).
    fn set_path(&mut self, path: RSlice<'_, u8>);

    /// Replaces every entry of this name by one.
    fn set(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>);

    /// Adds an entry beside those of the same name.
    fn append(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>);

    /// Removes every entry of this name.
    fn remove(&mut self, list: List, name: RSlice<'_, u8>);

    /// Replaces the body.
    fn set_body(&mut self, body: RVec<u8>);

    /// The body that a plugin of this chain has set, if any did.
    fn body_set(&self) -> ROption<RSlice<'_, u8>>;

    /// Asks the gateway. Each question travels at most once per call; asked again, its future is
    /// ready at once. The future may outlive the call; it then ends as [`AskStatus::CALL_OVER`].
    fn ask(&self, question: Question<'_>) -> FfiFuture<AskStatus>;

    /// The answer to a question that ended as [`AskStatus::ANSWERED`]; none where the gateway has
    /// no such value.
    #[sabi(last_prefix_field)]
    fn answer(&self, question: Question<'_>) -> ROption<RSlice<'_, u8>>;

    /// Since 1.1: a value that a plugin of this chain has set, or that was loaded.
    fn value(&self, name: RSlice<'_, u8>) -> ROption<RSlice<'_, u8>> {
        let _ = name;
        ROption::RNone
    }

    /// Since 1.1: sets a value, or removes it. With `keep` later calls of the same request can load
    /// it, if this one ends well; that takes an answer to the variable `request_id`.
    fn set_value(
        &mut self,
        name: RSlice<'_, u8>,
        value: ROption<RVec<u8>>,
        keep: bool,
    ) -> ValueStatus {
        let _ = (name, value, keep);
        ValueStatus::UNSUPPORTED
    }

    /// Since 1.1: adds what earlier calls of the same request have kept, beside what is there. It
    /// takes an answer to the variable `request_id`, and does something only once per call.
    fn load_values(&mut self) -> ValueStatus {
        ValueStatus::UNSUPPORTED
    }
}

/// Owned handle of a call.
pub type CallObject = HostCall_TO<RBox<()>>;

/// Severity of a log record.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogLevel(pub u8);

impl LogLevel {
    /// Something failed.
    pub const ERROR: Self = Self(1);
    /// Something is off.
    pub const WARN: Self = Self(2);
    /// Worth knowing in production.
    pub const INFO: Self = Self(3);
    /// For who looks for a fault.
    pub const DEBUG: Self = Self(4);
    /// Everything.
    pub const TRACE: Self = Self(5);
}

/// One log record on its way to the host's log.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// Severity.
    pub level: LogLevel,
    /// Module path of the code that logs.
    pub target: RStr<'a>,
    /// Text.
    pub message: RStr<'a>,
    /// Structured fields, rendered.
    pub fields: RSlice<'a, LogField<'a>>,
}

/// One structured field of a log record.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct LogField<'a> {
    /// Name.
    pub name: RStr<'a>,
    /// Value, as text.
    pub value: RStr<'a>,
}

/// What became of a background task.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnStatus(pub u8);

impl SpawnStatus {
    /// The host polls it from now on.
    pub const SPAWNED: Self = Self(0);
    /// The plugin has as many as it may have; this one was dropped.
    pub const TOO_MANY: Self = Self(1);
    /// The plugin is being unloaded; the task was dropped.
    pub const UNLOADING: Self = Self(2);
    /// The host has no thread for it; it was dropped.
    pub const NO_THREAD: Self = Self(3);
}

/// What a metric counts.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricKind(pub u8);

impl MetricKind {
    /// [`MetricCells::value`] is a number that only grows.
    pub const COUNTER: Self = Self(0);
    /// [`MetricCells::value`] has the bits of an `f64`.
    pub const GAUGE: Self = Self(1);
    /// [`MetricCells::value`] has the bits of an `f64`, the sum of what was observed;
    /// [`MetricCells::buckets`] count it.
    pub const HISTOGRAM: Self = Self(2);
}

/// One label of a series.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct MetricLabel<'a> {
    /// Name.
    pub name: RStr<'a>,
    /// Value.
    pub value: RStr<'a>,
}

/// Which series of which metric is wanted.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct MetricArguments<'a> {
    /// What it counts.
    pub kind: MetricKind,
    /// Name, without what the host puts before it.
    pub name: RStr<'a>,
    /// What it is, in a sentence.
    pub help: RStr<'a>,
    /// Labels, in the order of the metric's first series.
    pub labels: RSlice<'a, MetricLabel<'a>>,
    /// Upper bounds of a histogram's buckets, rising, without infinity.
    pub bounds: RSlice<'a, f64>,
    /// Declares the metric, so that a mistake shows, and makes no series of it: what is returned is
    /// nobody's.
    pub only_check: bool,
}

/// A series, which host and plugin count in together.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct MetricSeries {
    /// Its numbers.
    pub cells: RArc<MetricCells>,
    /// Whether it stands for all series beyond the bound, and not for the one that was asked for.
    pub is_overflow: bool,
}

/// The numbers of a series; see [`MetricKind`].
#[repr(C)]
#[derive(StableAbi, Debug, Default)]
pub struct MetricCells {
    /// The number, or the sum.
    pub value: AtomicU64,
    /// How many observations lie in each bucket and in none before it, the one without a bound last.
    pub buckets: RVec<AtomicU64>,
}

/// What the host does for one plugin library. Functions may be called from any thread.
#[sabi_trait]
pub trait HostServices: Send + Sync + 'static {
    /// Whether a record of this level and target would be written: asked before one is formatted.
    fn log_enabled(&self, level: LogLevel, target: RStr<'_>) -> bool;

    /// Writes a record; never blocks.
    fn log(&self, record: LogRecord<'_>);

    /// A future that is ready after so many nanoseconds.
    #[sabi(last_prefix_field)]
    fn sleep(&self, nanoseconds: u64) -> FfiFuture<()>;

    /// Since 1.1: polls a future until it ends or the plugin is unloaded, on a thread that belongs
    /// to this plugin's tasks. It must not panic.
    fn spawn(&self, task: FfiFuture<()>) -> SpawnStatus {
        drop(task);
        SpawnStatus::NO_THREAD
    }

    /// Since 1.1: a series of one of the plugin's metrics, the same one each time that it is asked
    /// for. An error says what is wrong with the metric.
    fn metric(&self, metric: MetricArguments<'_>) -> RResult<MetricSeries, RString> {
        let _ = metric;
        RResult::RErr(RString::from("this host keeps no metrics of plugins"))
    }

    /// Since 1.1: sends a request to another server; the future ends when the head of the response
    /// has arrived. Dropping it gives the request up.
    fn fetch(&self, request: OutgoingObject) -> FfiFuture<RResult<IncomingObject, HttpFailure>> {
        drop(request);
        FfiFuture::new(async { RResult::RErr(HttpFailure::no_client()) })
    }

    /// Since 1.1: tells that the library has stopped a runtime of its own and that so many of its
    /// threads go on, since something blocks them.
    fn threads_left(&self, threads: usize) {
        let _ = threads;
    }
}

/// Owned handle of the host's services.
pub type Host = HostServices_TO<RBox<()>>;

/// The layout of every type above as text, for the snapshot that makes changes of the ABI visible.
#[doc(hidden)]
pub fn layout_text() -> String {
    layout::render()
}

/// Why a library's root module is refused, although it exports one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleError {
    /// Built with a release of `abi_stable` that cannot meet ours.
    Header(String),
    /// A type that crosses the boundary has another layout; the text names the field.
    Layout(String),
    /// The root module's constructor failed.
    Constructor(String),
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(reason) => write!(f, "its ABI header does not fit: {reason}"),
            Self::Layout(reason) => {
                write!(
                    f,
                    "its plugin-abi is laid out differently from this host's: {reason}"
                )
            }
            Self::Constructor(reason) => write!(f, "its root module failed: {reason}"),
        }
    }
}

impl std::error::Error for ModuleError {}

/// Checks the layout of everything that a library exports and takes its root module.
///
/// Each library is checked on its own, against a fresh record of checked types: the process-wide
/// one of `abi_stable` keeps pointers into earlier libraries. `RootModule::load_from*` is not used,
/// since it returns the first library's module for every later one.
///
/// # Errors
/// The header, a layout or the constructor does not fit.
pub fn module_of(header: AbiHeaderRef) -> Result<PluginModuleRef, ModuleError> {
    compatibility::root_module(header)
}
