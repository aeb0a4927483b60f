//! The layout of every type that crosses the boundary, as text that two versions can be compared by.
//!
//! It is what `abi_stable` compares when a library is loaded, without what may differ between equal
//! ABIs: addresses, lines, the compiler. Only the snapshot test reads it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt::{self, Write},
};

use abi_stable::{
    StableAbi,
    std_types::UTypeId,
    type_layout::{TLData, TLField, TLFunction, Tag, TypeLayout},
};

use super::PluginModuleRef;

/// Renders the root module and every type that is reached from it, fields and signatures included.
pub(super) fn render() -> String {
    let types = reachable(<PluginModuleRef as StableAbi>::LAYOUT);
    let mut renderer = Renderer {
        names: names(&types),
        text: String::new(),
    };
    for layout in types {
        renderer
            .write_type(layout)
            .expect("writing to a string cannot fail");
    }
    renderer.text
}

/// `abi_stable` gives some types of its own the identity of those that they stand for (`()`), so the
/// name belongs to it.
type Identity = (UTypeId, &'static str);

fn identity(layout: &TypeLayout) -> Identity {
    (layout.get_utypeid(), layout.name())
}

/// A type and all that its layout or signatures mention, nearest first.
fn reachable(root: &'static TypeLayout) -> Vec<&'static TypeLayout> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut waiting = VecDeque::from([root]);
    while let Some(layout) = waiting.pop_front() {
        if !known.insert(identity(layout)) {
            continue;
        }
        found.push(layout);
        let fields = layout.get_fields().into_iter().flatten();
        for field in fields.chain(layout.phantom_fields()) {
            waiting.push_back(field.layout());
            for function in field.function_range() {
                waiting.extend(function.param_type_layouts.iter().map(|layout| layout()));
                waiting.extend(function.return_type_layout().map(|layout| layout()));
            }
        }
        let parameters = layout.generics().type_params().iter();
        waiting.extend(parameters.map(|layout| layout()));
    }
    found
}

/// What each type is called. `abi_stable` leaves parameters out of most names, so those that come
/// again (`RVec`) are numbered: a field that changes from one to another has to be seen.
fn names(types: &[&'static TypeLayout]) -> HashMap<Identity, String> {
    let mut seen = HashMap::<String, usize>::new();
    types
        .iter()
        .map(|layout| {
            let name = one_line(&layout.full_type());
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            let name = if *count == 1 {
                name
            } else {
                format!("{name} ({count})")
            };
            (identity(layout), name)
        })
        .collect()
}

struct Renderer {
    names: HashMap<Identity, String>,
    text: String,
}

impl Renderer {
    fn name(&self, layout: &TypeLayout) -> &str {
        &self.names[&identity(layout)]
    }

    fn write_type(&mut self, layout: &'static TypeLayout) -> fmt::Result {
        let name = self.name(layout).to_owned();
        writeln!(
            self.text,
            "{} {name}: size {}, align {}, repr {:?}{}",
            layout.package(),
            layout.size(),
            layout.alignment(),
            layout.repr_attr(),
            if layout.is_nonzero() {
                ", never zero"
            } else {
                ""
            },
        )?;
        match layout.data() {
            TLData::Primitive(primitive) => writeln!(self.text, "  primitive {primitive:?}")?,
            TLData::Opaque => writeln!(self.text, "  opaque")?,
            TLData::Struct { fields } => self.write_fields("field", fields)?,
            TLData::Union { fields } => self.write_fields("union field", fields)?,
            TLData::Enum(variants) => {
                let mut fields = variants.fields.iter();
                writeln!(self.text, "  discriminants {:?}", variants.discriminants)?;
                let names = variants.variant_names_iter();
                for (name, count) in names.zip(variants.field_count.as_slice()) {
                    writeln!(self.text, "  variant {name}")?;
                    self.write_fields("  field", fields.by_ref().take((*count).into()))?;
                }
            }
            TLData::PrefixType(prefix) => {
                writeln!(
                    self.text,
                    "  the first {} are always present",
                    prefix.first_suffix_field
                )?;
                self.write_fields("entry", prefix.fields)?;
            }
        }
        self.write_fields("marker", layout.phantom_fields())?;
        if layout.tag() != Tag::NULL {
            writeln!(self.text, "  tag {}", one_line(layout.tag()))?;
        }
        writeln!(self.text)
    }

    fn write_fields(
        &mut self,
        kind: &str,
        fields: impl IntoIterator<Item = TLField>,
    ) -> fmt::Result {
        for field in fields {
            let name = self.name(field.layout()).to_owned();
            writeln!(self.text, "  {kind} {}: {name}", field.name())?;
            for function in field.function_range() {
                self.write_function(&function)?;
            }
        }
        Ok(())
    }

    fn write_function(&mut self, function: &TLFunction) -> fmt::Result {
        let safety = if function.fn_qualifs.is_unsafe() {
            "unsafe "
        } else {
            ""
        };
        let parameters: Vec<&str> = function
            .param_type_layouts
            .iter()
            .map(|layout| self.name(layout()))
            .collect();
        let returned = match function.return_type_layout() {
            Some(layout) => self.name(layout()),
            None => "()",
        };
        let signature = format!("    {safety}fn({}) -> {returned}", parameters.join(", "));
        self.text += &signature;
        let lifetimes = function.paramret_lifetime_indices;
        if !lifetimes.is_empty() {
            write!(self.text, ", lifetimes {:?}", lifetimes.as_slice())?;
        }
        writeln!(self.text)
    }
}

fn one_line(value: &impl fmt::Display) -> String {
    let text = value.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}
