//! The `plugins` of a route: those of the gateway's own that are supported here.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::{Problem, Reader};
use crate::client::Field;
use crate::gateway::routes::document::{Node, Value};
use crate::gateway::routes::{ExtPlugin, ProxyRewrite};

/// The plugins that hand requests to a host.
const EXT_PLUGINS: &[&str] = &[
    "ext-plugin-pre-req",
    "ext-plugin-post-req",
    "ext-plugin-post-resp",
];

/// Characters in the name of a plugin in `conf`, at most, as the real gateway checks it.
const MAX_NAME: usize = 128;

/// The plugins of a route.
#[derive(Default)]
pub(super) struct Plugins {
    /// By the gateway's name for them.
    pub(super) ext: BTreeMap<&'static str, ExtPlugin>,
    pub(super) proxy_rewrite: Option<ProxyRewrite>,
}

impl Reader {
    pub(super) fn plugins(&mut self, route: &mut Fields<'_>, id: &str) -> Result<Plugins, Problem> {
        let mut plugins = Plugins::default();
        let Some(node) = route.take("plugins") else {
            return Ok(plugins);
        };
        let mut fields = Fields::of(node, &format!("{}, `plugins`", route.place()))?;
        for name in EXT_PLUGINS {
            if let Some(node) = fields.take(name) {
                let place = format!("{}, `{name}`", route.place());
                let key = format!("route#{id}#{name}#{}", self.version);
                if let Some(plugin) = self.ext_plugin(node, &place, key)? {
                    plugins.ext.insert(name, plugin);
                }
            }
        }
        if let Some(node) = fields.take("proxy-rewrite") {
            let place = format!("{}, `proxy-rewrite`", route.place());
            plugins.proxy_rewrite = self.proxy_rewrite(node, &place)?;
        }
        fields.rest(&mut self.warnings);
        Ok(plugins)
    }

    fn ext_plugin(
        &mut self,
        node: &Node,
        place: &str,
        key: String,
    ) -> Result<Option<ExtPlugin>, Problem> {
        let mut fields = Fields::of(node, place)?;
        let is_off = self.is_off(&mut fields)?;
        let mut conf = Vec::new();
        if let Some(list) = fields.take("conf") {
            let Value::List(items) = &list.value else {
                let text = format!("{} is there, and a list is needed", list.value.kind());
                return Err(fields.wrong("conf", &text));
            };
            if items.is_empty() {
                let text = "the real gateway refuses an empty list: leave `conf` out";
                self.warnings.push(fields.about("conf", text));
            }
            for (number, item) in (1..).zip(items.iter()) {
                let mut fields = Fields::of(item, &format!("{place}, plugin {number}"))?;
                let missing = |name, fields: &Fields<'_>| fields.wrong(name, "it is missing");
                let name = fields.text("name")?;
                let name = name.ok_or_else(|| missing("name", &fields))?;
                let value = fields.text("value")?;
                let value = value.ok_or_else(|| missing("value", &fields))?;
                if !(1..=MAX_NAME).contains(&name.chars().count()) {
                    let text = format!("1 to {MAX_NAME} characters are needed");
                    return Err(fields.wrong("name", &text));
                }
                fields.rest(&mut self.warnings);
                conf.push(Field::new(name, value));
            }
        }
        let allow_degradation = fields.flag("allow_degradation")?;
        fields.rest(&mut self.warnings);
        let plugin = ExtPlugin {
            key,
            conf,
            allow_degradation,
        };
        Ok((!is_off).then_some(plugin))
    }

    fn proxy_rewrite(&mut self, node: &Node, place: &str) -> Result<Option<ProxyRewrite>, Problem> {
        let mut fields = Fields::of(node, place)?;
        let is_off = self.is_off(&mut fields)?;
        let mut rewrite = ProxyRewrite {
            uri: fields.text("uri")?,
            ..ProxyRewrite::default()
        };
        if rewrite
            .uri
            .as_ref()
            .is_some_and(|uri| !uri.starts_with('/'))
        {
            return Err(fields.wrong("uri", "a path that begins with `/` is needed"));
        }
        if let Some(node) = fields.take("headers") {
            let mut headers = Fields::of(node, &format!("{place}, `headers`"))?;
            let is_new_form = ["set", "add", "remove"].iter().any(|name| {
                headers.all().iter().any(|(other, node)| {
                    other == name && matches!(node.value, Value::Map(_) | Value::List(_))
                })
            });
            if is_new_form {
                for (name, list) in [("set", &mut rewrite.set), ("add", &mut rewrite.add)] {
                    if let Some(node) = headers.take(name) {
                        *list = pairs(&Fields::of(node, &format!("{place}, `headers.{name}`"))?)?;
                    }
                }
                rewrite.remove = headers.texts("remove")?;
                headers.rest(&mut self.warnings);
            } else {
                rewrite.set = pairs(&headers)?;
            }
        }
        fields.rest(&mut self.warnings);
        Ok((!is_off).then_some(rewrite))
    }

    /// Whether a plugin is there and switched off.
    fn is_off(&mut self, fields: &mut Fields<'_>) -> Result<bool, Problem> {
        let Some(node) = fields.take("_meta") else {
            return Ok(false);
        };
        let mut meta = Fields::of(node, &format!("{}, `_meta`", fields.place()))?;
        let is_off = meta.flag("disable")?;
        meta.rest(&mut self.warnings);
        Ok(is_off)
    }
}

/// Headers with their values, which may be numbers.
fn pairs(fields: &Fields<'_>) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    for (name, node) in fields.all() {
        let value = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => {
                let text = format!("{} is there, and a text is needed", other.kind());
                return Err(fields.wrong(name, &text));
            }
        };
        if name.is_empty() || name.bytes().any(|byte| !is_name_byte(byte)) {
            return Err(fields.wrong(name, "this is no name of a header"));
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err(fields.wrong(name, "a header's value is one line"));
        }
        pairs.push((name.clone(), value));
    }
    Ok(pairs)
}

/// RFC 9110, section 5.6.2.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
