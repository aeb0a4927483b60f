//! Upstreams: those of a route, and those that the file shares among routes.

use super::fields::Fields;
use super::{DESCRIPTIONS, Problem, Reader};
use crate::gateway::routes::document::{Node as Item, Value};
use crate::gateway::routes::{MAX_ITEMS, Node, PassHost, Upstream};

/// Where the file names no port.
const DEFAULT_PORT: u16 = 80;

impl Reader {
    /// One of the file's `upstreams`.
    pub(super) fn shared_upstream(&mut self, item: &Item, place: &str) -> Result<(), Problem> {
        let id = Fields::of(item, place)?.id()?;
        let id = id.unwrap_or_else(|| place.to_owned());
        let mut upstream = self.upstream(item, &format!("upstream `{id}`"))?;
        upstream.id = Some(id.clone());
        if self.upstreams.insert(id.clone(), upstream).is_some() {
            let text = format!("upstream `{id}` is there twice: give one another id");
            return Err(Problem::at(item, text));
        }
        Ok(())
    }

    /// The upstream of a route: its own, or the one that it names.
    pub(super) fn upstream_of(
        &mut self,
        route: &mut Fields<'_>,
    ) -> Result<Option<Upstream>, Problem> {
        let named = route.id_of("upstream_id")?;
        if let Some(node) = route.take("upstream") {
            let place = format!("{}, `upstream`", route.place());
            return self.upstream(node, &place).map(Some);
        }
        let Some(id) = named else {
            return Ok(None);
        };
        match self.upstreams.get(&id) {
            Some(upstream) => Ok(Some(upstream.clone())),
            None => {
                let text = format!("the file's `upstreams` have none with the id `{id}`");
                Err(route.wrong("upstream_id", &text))
            }
        }
    }

    fn upstream(&mut self, item: &Item, place: &str) -> Result<Upstream, Problem> {
        let mut fields = Fields::of(item, place)?;
        let id = fields.id()?;
        if let Some(kind) = fields.text("type")?.filter(|kind| kind != "roundrobin") {
            let text = format!("`{kind}` is not supported here: nodes are used in turn");
            self.warnings.push(fields.about("type", &text));
        }
        if let Some(scheme) = fields.text("scheme")?.filter(|scheme| scheme != "http") {
            let text = format!("`{scheme}` is not supported here: it is spoken to in plain HTTP");
            self.warnings.push(fields.about("scheme", &text));
        }
        let host = fields.text("upstream_host")?;
        let pass_host = match (fields.text("pass_host")?.as_deref(), host) {
            (None | Some("pass"), _) => PassHost::Pass,
            (Some("node"), _) => PassHost::Node,
            (Some("rewrite"), Some(host)) => PassHost::Rewrite(host),
            (Some("rewrite"), None) => {
                let text = "`rewrite` needs the host, in `upstream_host`";
                return Err(fields.wrong("pass_host", text));
            }
            (Some(_), _) => {
                return Err(fields.wrong("pass_host", "pass, node or rewrite is needed"));
            }
        };
        let nodes = match fields.take("nodes") {
            Some(nodes) => self.nodes(nodes, &fields)?,
            None => return Err(fields.wrong("nodes", "it is missing: an upstream needs nodes")),
        };
        fields.ignore(DESCRIPTIONS);
        fields.ignore(&["name"]);
        fields.rest(&mut self.warnings);
        Ok(Upstream {
            id,
            nodes,
            pass_host,
        })
    }

    /// Either form: a map from `host:port` to the weight, or a list of maps.
    fn nodes(&mut self, item: &Item, upstream: &Fields<'_>) -> Result<Vec<Node>, Problem> {
        let place = format!("{}, `nodes`", upstream.place());
        let mut nodes = Vec::new();
        match &item.value {
            Value::Map(fields) => {
                let map = Fields::of(item, &place)?;
                for (address, weight) in fields.iter() {
                    let node = match weight.value {
                        Value::Int(weight) => node_at(address, weight),
                        _ => Err("its weight, a number, is needed".to_owned()),
                    };
                    nodes.push(node.map_err(|text| map.wrong(address, &text))?);
                }
            }
            Value::List(items) => {
                for (number, item) in (1..).zip(items.iter()) {
                    let mut fields = Fields::of(item, &format!("{place}, node {number}"))?;
                    let host = fields.text("host")?;
                    let host = host.ok_or_else(|| fields.wrong("host", "it is missing"))?;
                    let host = without_brackets(&host);
                    let port = fields.int("port")?.unwrap_or(DEFAULT_PORT.into());
                    let port = as_port(port).map_err(|text| fields.wrong("port", &text))?;
                    let weight = fields.int("weight")?.unwrap_or(1);
                    let weight = as_weight(weight).map_err(|text| fields.wrong("weight", &text))?;
                    fields.rest(&mut self.warnings);
                    nodes.push(Node { host, port, weight });
                }
            }
            other => {
                let text = format!("{} is there, and a map or a list is needed", other.kind());
                return Err(upstream.wrong("nodes", &text));
            }
        }
        if nodes.len() > MAX_ITEMS {
            let text = format!("there are more than {MAX_ITEMS}");
            return Err(upstream.wrong("nodes", &text));
        }
        nodes.retain(|node| node.weight > 0);
        Ok(nodes)
    }
}

fn node_at(address: &str, weight: i64) -> Result<Node, String> {
    // An IPv6 address without brackets has colons and no port.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let number = port.parse();
            (host, number.map_err(|_| format!("`{port}` is no port"))?)
        }
        _ => (address, i64::from(DEFAULT_PORT)),
    };
    let host = without_brackets(host);
    if host.is_empty() {
        return Err("a host is needed before the port".to_owned());
    }
    let (port, weight) = (as_port(port)?, as_weight(weight)?);
    Ok(Node { host, port, weight })
}

fn without_brackets(host: &str) -> String {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).to_owned()
}

fn as_port(number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{number} is no port: 1 to 65535 is needed"))
}

fn as_weight(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{number} is no weight: 0 or more is needed"))
}
