//! The resources of a machine: read and watched, never written.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use prost::Message;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::maintenance::STATE;
use super::{Api, Caller, Replies, wire_time};
use crate::machine::resources::{MACHINE_CONFIG, Resource, TYPES, Type};
use crate::talos::proto::config::MachineConfigSpec;
use crate::talos::proto::cosi::resource::meta::ResourceDefinitionSpec;
use crate::talos::proto::cosi::resource::meta::resource_definition_spec::{PrintColumn, Sensitivity};
use crate::talos::proto::cosi::resource::state_server::State;
use crate::talos::proto::cosi::resource::{self as wire, EventType};
use crate::world::World;

const DEFINITIONS: &str = "ResourceDefinitions.meta.cosi.dev";
const MEMBERS: &str = "Members.cluster.talos.dev";

/// A type of resource in its namespace, as a request names it.
struct StateCall {
    namespace: String,
    kind: String,
}

impl StateCall {
    /// # Errors
    /// An unknown type or namespace, and one that the caller may not read, are refused alike.
    fn of(caller: &Caller, namespace: &str, kind: &str) -> Result<Self, Status> {
        let denied = || Status::permission_denied(format!("access denied to {namespace}/{kind}"));
        if kind != DEFINITIONS {
            let known = TYPES.iter().find(|known| known.name == kind && known.namespace == namespace);
            if known.ok_or_else(denied)?.sensitive {
                caller.admin().map_err(|_| denied())?;
            }
        } else if namespace != "meta" {
            return Err(denied());
        }
        Ok(Self { namespace: namespace.to_owned(), kind: kind.to_owned() })
    }

    /// Everything of the type, by id.
    fn all(&self, world: &World, address: &str) -> BTreeMap<String, wire::Resource> {
        let machine = world.machines.get(address);
        let fixed = |spec| Resource {
            version: 1,
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            spec,
        };
        match self.kind.as_str() {
            DEFINITIONS => TYPES.iter().map(definition).collect(),
            // Without a configuration, a machine knows of no others.
            MEMBERS if machine.is_some_and(|machine| machine.active.is_some()) => {
                let members = world.members().into_iter();
                members.map(|(id, spec)| (id.clone(), self.resource(&id, &fixed(spec)))).collect()
            }
            kind => {
                let published = machine.into_iter().flat_map(|machine| machine.published.of(kind));
                published.map(|(id, resource)| (id.clone(), self.resource(id, resource))).collect()
            }
        }
    }

    fn resource(&self, id: &str, resource: &Resource) -> wire::Resource {
        let metadata = wire::Metadata {
            namespace: self.namespace.clone(),
            r#type: self.kind.clone(),
            id: id.to_owned(),
            version: resource.version.to_string(),
            phase: "running".to_owned(),
            created: Some(wire_time(resource.created)),
            updated: Some(wire_time(resource.updated)),
            ..Default::default()
        };
        // As the real Talos does it: a machine config has the proto form alone.
        let spec = match (&resource.spec, self.kind.as_str()) {
            (Value::String(text), MACHINE_CONFIG) => {
                let config = MachineConfigSpec { yaml_marshalled: text.as_bytes().to_vec() };
                wire::Spec { proto_spec: config.encode_to_vec(), yaml_spec: "{}\n".to_owned() }
            }
            (spec, _) => wire::Spec { yaml_spec: yaml(spec), ..Default::default() },
        };
        wire::Resource { metadata: Some(metadata), spec: Some(spec) }
    }
}

fn yaml(spec: &Value) -> String {
    serde_yaml::to_string(spec).unwrap_or_default()
}

/// What talosctl needs to know of a type.
fn definition(of: &Type) -> (String, wire::Resource) {
    let id = of.name.to_lowercase();
    let short = of.name.split('.').next().unwrap_or_default();
    let display = short.strip_suffix("es").filter(|s| s.ends_with("tus")).or_else(|| short.strip_suffix('s'));
    let column =
        |(name, path): &(&str, &str)| PrintColumn { name: (*name).to_owned(), json_path: (*path).to_owned() };
    let aliases: Vec<String> = of.aliases.iter().map(|alias| (*alias).to_owned()).collect();
    let spec = ResourceDefinitionSpec {
        resource_type: of.name.to_owned(),
        display_type: display.unwrap_or(short).to_owned(),
        default_namespace: of.namespace.to_owned(),
        aliases: aliases.clone(),
        all_aliases: aliases.iter().cloned().chain([id.clone()]).collect(),
        print_columns: of.columns.iter().map(column).collect(),
        sensitivity: if of.sensitive { Sensitivity::Sensitive } else { Sensitivity::NonSensitive }.into(),
    };
    let text = json!({
        "type": spec.resource_type, "displayType": spec.display_type, "aliases": spec.aliases, "allAliases": spec.all_aliases,
        "printColumns": spec.print_columns.iter().map(|c| json!({"name": c.name, "jsonPath": c.json_path})).collect::<Vec<_>>(),
        "defaultNamespace": spec.default_namespace, "sensitivity": if of.sensitive { "sensitive" } else { "" },
    });
    let metadata = wire::Metadata {
        namespace: "meta".to_owned(),
        r#type: DEFINITIONS.to_owned(),
        id: id.clone(),
        version: "1".to_owned(),
        phase: "running".to_owned(),
        ..Default::default()
    };
    let spec = wire::Spec { proto_spec: spec.encode_to_vec(), yaml_spec: yaml(&text) };
    (id, wire::Resource { metadata: Some(metadata), spec: Some(spec) })
}

#[tonic::async_trait]
impl State for Api {
    type ListStream = Replies<wire::ListResponse>;
    type WatchStream = Replies<wire::WatchResponse>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        let caller = self.caller(&request, STATE)?;
        let wire::GetRequest { namespace, r#type, id, .. } = request.into_inner();
        let asked = StateCall::of(&caller, &namespace, &r#type)?;
        let node = caller.one()?;
        let get = |world: &mut World, _: Timestamp, address: &str| {
            let found = asked.all(world, address).remove(&id);
            found.ok_or_else(|| {
                let kind = &asked.kind;
                Status::not_found(format!("resource {kind}({namespace}/{id}@undefined) doesn't exist"))
            })
        };
        let resource = Some(self.call(&caller, node, &format!("Get {}", asked.kind), get).await?);
        Ok(Response::new(wire::GetResponse { resource }))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.caller(&request, STATE)?;
        let wire::ListRequest { namespace, r#type, .. } = request.into_inner();
        let asked = StateCall::of(&caller, &namespace, &r#type)?;
        let list = |world: &mut World, _: Timestamp, address: &str| Ok(asked.all(world, address));
        let found = self.call(&caller, caller.one()?, &format!("List {}", asked.kind), list).await?;
        let replies = found.into_values().map(|resource| Ok(wire::ListResponse { resource: Some(resource) }));
        Ok(Response::new(Box::pin(stream::iter(replies.collect::<Vec<_>>()))))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request, STATE)?;
        let wire::WatchRequest { namespace, r#type, id, options, api_version } = request.into_inner();
        let asked = StateCall::of(&caller, &namespace, &r#type)?;
        let options = options.unwrap_or_default();
        if id.is_some() && options.bootstrap_contents {
            return Err(Status::unimplemented("bootstrap contents of a single resource"));
        }
        let all = |world: &mut World, _: Timestamp, address: &str| {
            Ok((address.to_owned(), asked.all(world, address)))
        };
        let (address, there) =
            self.call(&caller, caller.one()?, &format!("Watch {}", asked.kind), all).await?;
        let mut watch = Watch { asked, address, id, seen: BTreeMap::new() };
        let mut first = Vec::new();
        let tells = watch.id.is_some() || options.bootstrap_contents;
        let events = watch.news(there);
        if tells {
            first.extend(events);
        }
        if watch.id.is_none() && options.bootstrap_contents && api_version >= 1 {
            first.push(event(EventType::Bootstrapped, None));
        }
        Ok(Response::new(self.stream(watch, first)))
    }
}

/// A watch, and what it told of last.
struct Watch {
    asked: StateCall,
    address: String,
    id: Option<String>,
    seen: BTreeMap<String, wire::Resource>,
}

impl Watch {
    /// What is other than what was told.
    fn news(&mut self, mut there: BTreeMap<String, wire::Resource>) -> Vec<wire::Event> {
        if let Some(id) = &self.id {
            there.retain(|there, _| there == id);
        }
        let mut events = Vec::new();
        for (id, resource) in &there {
            match self.seen.get(id) {
                None => events.push(event(EventType::Created, Some(resource.clone()))),
                Some(old) if old != resource => {
                    events.push(event(EventType::Updated, Some(resource.clone())))
                }
                Some(_) => {}
            }
        }
        let gone = self.seen.iter().filter(|(id, _)| !there.contains_key(*id));
        events.extend(gone.map(|(_, resource)| event(EventType::Destroyed, Some(resource.clone()))));
        self.seen = there;
        events
    }
}

fn event(kind: EventType, resource: Option<wire::Resource>) -> wire::Event {
    wire::Event { resource, event_type: kind.into(), ..Default::default() }
}

impl Api {
    /// First an empty reply, which says that the watch is up; then the first events, then the changes as they come. A
    /// machine that goes down ends it.
    fn stream(&self, watch: Watch, first: Vec<wire::Event>) -> Replies<wire::WatchResponse> {
        let reply = |event| wire::WatchResponse { event };
        let begin = stream::iter(
            [Ok(reply(Vec::new()))].into_iter().chain((!first.is_empty()).then(|| Ok(reply(first)))),
        );
        let state = Some((self.clone(), watch, self.fleet.changes()));
        let rest = stream::unfold(state, move |state| async move {
            let (api, mut watch, mut changes) = state?;
            loop {
                changes.mark_unchanged();
                let there = {
                    let world = api.fleet.look();
                    let up = world.machines.get(&watch.address).is_some_and(|machine| !machine.rebooting);
                    up.then(|| watch.asked.all(&world, &watch.address))
                };
                let Some(there) = there else {
                    return Some((Err(Status::unavailable("the machine goes down")), None));
                };
                let event = watch.news(there);
                if !event.is_empty() {
                    return Some((Ok(wire::WatchResponse { event }), Some((api, watch, changes))));
                }
                changes.changed().await?;
            }
        });
        Box::pin(begin.chain(rest))
    }
}
