//! What the policy of docs/abi.md promises, on a small ABI in several releases: libraries of an older
//! and of a newer release load, and what cannot fit is refused.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_braces,
    reason = "a failed test says where it failed; no test uses all of every release"
)]

use abi_stable::{
    StableAbi,
    erased_types::TD_Opaque,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    package_version_strings,
    prefix_type::PrefixTypeTrait,
    sabi_trait,
    sabi_types::VersionStrings,
    std_types::RBox,
};

use super::*;

/// A root module and a trait object, as one release of this crate might have them, and the
/// library that implements them.
macro_rules! release {
    ($release:ident, { $($method:tt)* }, { $($entry:tt)* }, { $($field:ident: $value:expr)? }) => {
        mod $release {
            use super::*;

            #[sabi_trait]
            pub(super) trait Thing: Send + Sync + 'static {
                #[sabi(last_prefix_field)]
                fn old(&self) -> u32;
                $($method)*
            }

            #[repr(C)]
            #[derive(StableAbi)]
            #[sabi(kind(Prefix(prefix_ref = RootRef)))]
            #[sabi(missing_field(option))]
            pub(super) struct Root {
                #[sabi(last_prefix_field)]
                pub(super) create: extern "C" fn() -> Object,
                $($entry)*
            }

            impl RootModule for RootRef {
                abi_stable::declare_root_module_statics! {RootRef}
                const BASE_NAME: &'static str = "release";
                const NAME: &'static str = "release";
                const VERSION_STRINGS: VersionStrings = package_version_strings!();
            }

            struct Implementation;

            impl Thing for Implementation {
                fn old(&self) -> u32 {
                    1
                }
            }

            pub(super) type Object = Thing_TO<RBox<()>>;

            pub(super) extern "C" fn create() -> Object {
                Thing_TO::from_value(Implementation, TD_Opaque)
            }

            extern "C" fn construct() -> RootModuleResult {
                __call_root_module_loader(|| {
                    Root { create, $($field: $value)? }.leak_into_prefix()
                })
            }

            // SAFETY: `construct` returns a `RootRef`, erased by way of the function that takes
            // the very type.
            static LIBRARY: LibHeader = unsafe {
                LibHeader::from_constructor::<RootRef>(construct, CheckTypeLayout::Yes)
            };

            /// What the host finds when it looks the library's symbol up.
            pub(super) fn library() -> AbiHeaderRef {
                // SAFETY: an `AbiHeaderRef` is a reference to the header that each `LibHeader`
                // begins with, transparently; `upgrade` checks it.
                unsafe { std::mem::transmute::<&'static LibHeader, AbiHeaderRef>(&LIBRARY) }
            }
        }
    };
}

extern "C" fn two() -> u32 {
    2
}

release!(first, {}, {}, {});
release!(
    second,
    { fn added(&self) -> u32 { 20 } },
    { pub(super) extra: extern "C" fn() -> u32, },
    { extra: two }
);
release!(
    changed,
    {},
    { pub(super) extra: extern "C" fn() -> u64, },
    { extra: four }
);

release!(
    renamed,
    {},
    { pub(super) another: extern "C" fn() -> u32, },
    { another: two }
);

extern "C" fn four() -> u64 {
    4
}

#[test]
fn an_older_library_loads_and_lacks_only_what_was_added() {
    let module = root_module::<second::RootRef>(first::library()).unwrap();
    assert!(module.extra().is_none());
    let thing = module.create()();
    assert_eq!(thing.old(), 1);
    assert_eq!(thing.added(), 20, "the default of what it does not know");
}

#[test]
fn a_library_of_the_same_release_has_everything() {
    let module = root_module::<second::RootRef>(second::library()).unwrap();
    assert_eq!(module.extra().unwrap()(), 2);
    assert_eq!(module.create()().added(), 20);
}

#[test]
fn a_newer_library_loads_and_what_was_added_is_not_seen() {
    let module = root_module::<first::RootRef>(second::library()).unwrap();
    assert_eq!(module.create()().old(), 1);
}

#[test]
fn what_a_newer_library_calls_on_an_older_object_is_its_own_default() {
    let older = first::create();
    // What passing it across does: the newer side sees the table of the older one.
    // SAFETY: both are the same pointer to an object and a table, of which the older is a prefix of
    // the newer; `a_newer_library_loads...` has checked that it is.
    let seen = unsafe { std::mem::transmute::<first::Object, second::Object>(older) };
    assert_eq!(seen.old(), 1);
    assert_eq!(
        seen.added(),
        20,
        "the default of what the other does not have"
    );
}

/// Refuses a library in both directions, with a text that names the field and both sides of it.
fn check_refused<M: RootModule>(library: AbiHeaderRef, expected: &str) {
    match root_module::<M>(library).map(|_| ()) {
        Err(ModuleError::Layout(told)) => assert_eq!(told, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_library_with_another_signature_is_refused_by_the_name_of_the_field() {
    check_refused::<second::RootRef>(
        changed::library(),
        "`extra.__returns` is a `u64` in the library and `u32` in this host",
    );
    check_refused::<changed::RootRef>(
        second::library(),
        "`extra.__returns` is a `u32` in the library and `u64` in this host",
    );
}

#[test]
fn a_library_with_another_name_for_a_field_is_refused_by_both_names() {
    check_refused::<second::RootRef>(
        renamed::library(),
        "`Root` has `another` in the library where it has `extra` in this host",
    );
}
