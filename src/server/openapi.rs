//! The document that describes this API: made from the handlers and the protocol's types, answered at `/v1/openapi.json`.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{HeaderBuilder, OpenApiVersion, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses, OpenApi, PartialSchema, ToSchema, openapi};
use utoipa_axum::router::OpenApiRouter;

use super::Server;
use super::error::{Failure, Result};
use crate::wire::file::FileRow;
use crate::wire::session::{SelectedPage, SessionPage};
use crate::wire::{
    AgentConfig, EndRow, ErrorBody, ErrorCode, Field, Grouping, Measure, Number, Order, RunEvent, Scope,
    Session, SessionQuery,
};

/// The name of the way in which requests show who sends them.
const BEARER: &str = "bearer";
/// The media type of rows of JSON, one a line.
const LINES: &str = "application/x-ndjson";

/// What this API offers, in OpenAPI 3.2.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, body = Object)))]
pub async fn document(State(server): State<Server>) -> Result<impl IntoResponse> {
    let text = server
        .document
        .get()
        .ok_or_else(|| Failure::new(ErrorCode::Internal, "The document of the API is not there", None))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text.clone()))
}

/// What only parameters and streams name.
#[derive(OpenApi)]
#[openapi(
    components(schemas(
        ChangeFrame, EndRow, ErrorBody, Field, FileRow, Grouping, Measure, Number, Order, RunFrame
    )),
    info(title = "superserve", description = ABOUT)
)]
struct Outline;

const ABOUT: &str = "Agents and their sessions. Over the server's own socket no token is asked for: the file's \
    permissions decide; elsewhere a bearer token that is good for `read`, `write` or `admin`. A parameter that is empty counts as not given, one that is unknown is passed over. Every answer \
    with a status of 400 or more has the body `ErrorBody`.";

/// The document before any route is in it.
pub fn outline() -> openapi::OpenApi {
    let mut document = Outline::openapi();
    document.openapi = OpenApiVersion::Version32;
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document
}

/// The document as text, with what holds for every route.
pub fn finish(mut document: openapi::OpenApi) -> serde_json::Result<String> {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, item) in paths {
        // axum's form of a parameter that takes the rest of the path.
        document.paths.paths.insert(path.replace("{*", "{"), item);
    }
    let mut document = serde_json::to_value(&document)?;
    let schemas = &mut document["components"]["schemas"];
    // Its parts stand in the frames of its stream.
    schemas.as_object_mut().and_then(|schemas| schemas.remove(<RunEvent as ToSchema>::name().as_ref()));
    schemas[RunFrame::name().as_ref()] = run_frame(serde_json::to_value(RunEvent::schema())?);
    schemas[ChangeFrame::name().as_ref()] = change_frame();
    serde_json::to_string(&document)
}

/// Has the document say of these routes what a token must be good for, by their method; `None`: none is asked for.
pub fn told(
    mut router: OpenApiRouter<Server>,
    needed: impl Fn(&str) -> Option<Scope>,
) -> OpenApiRouter<Server> {
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let methods = [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                complete(operation, needed(method));
            }
        }
    }
    router
}

fn complete(operation: &mut Operation, needed: Option<Scope>) {
    operation.security = Some(vec![match needed {
        None => SecurityRequirement::default(),
        Some(scope) => SecurityRequirement::new(BEARER, [scope.as_str()]),
    }]);
    // The handler's name is that of one of its noun.
    let noun = operation.tags.as_ref().and_then(|tags| tags.first()).cloned().unwrap_or_default();
    operation.operation_id = operation.operation_id.take().map(|name| format!("{noun}_{name}"));
    let responses = &mut operation.responses.responses;
    responses.extend(Internal::responses());
    responses.extend(Forbidden::responses());
    responses.extend(TooOften::responses());
    if needed.is_some() {
        responses.extend(Unauthenticated::responses());
    }
    for response in responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let id = HeaderBuilder::new()
            .schema(Some(String::schema()))
            .description(Some(
                "What the server's log calls the request: as it called itself, if that is sane.",
            ))
            .build();
        response.headers.insert("X-Request-Id".to_owned(), id.into());
        if response.description.is_empty() {
            response.description = "Done.".to_owned();
        }
        // Where a file's content or a listing may come, the macro takes no word about the listing's rows.
        if let Some(RefOr::T(lines)) = response.content.get_mut(LINES)
            && lines.item_schema.is_none()
        {
            lines.schema = None;
            lines.item_schema = Some(Ref::from_schema_name(FileRow::name()).into());
        }
    }
}

/// One event of a run's stream. What `RunEvent` has as its type is the event's name here.
fn run_frame(events: Value) -> Value {
    let kinds = events["oneOf"].as_array().cloned().unwrap_or_default();
    let frames: Vec<Value> = kinds
        .into_iter()
        .map(|mut kind| {
            let parts = &mut kind["properties"];
            let (event, data) = (parts["type"].take(), parts["data"].take());
            let id = json!({ "type": "string", "pattern": "^run_[0-9a-f]{32}:[0-9]+$" });
            frame(&event, &data, Some(id))
        })
        .collect();
    let about = "One event. A reader that has lost its stream goes on after the last `id` that it has seen.";
    json!({ "description": about, "oneOf": frames })
}

/// One change of a session.
fn change_frame() -> Value {
    let named = |name: &str| json!({ "type": "string", "enum": [name] });
    let gone =
        json!({ "type": "object", "required": ["id"], "properties": { "id": of_schema("SessionId") } });
    let frames = [
        frame(&named("session.updated"), &of_schema(&Session::name()), None),
        frame(&named("session.deleted"), &gone, None),
    ];
    json!({ "description": "A session as it is now, or that it is forgotten.", "oneOf": frames })
}

fn of_schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn frame(event: &Value, data: &Value, id: Option<Value>) -> Value {
    let data = json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": data });
    let mut frame = json!({
        "type": "object",
        "required": ["event", "data"],
        "properties": { "event": event, "data": data },
    });
    if let Some(id) = id {
        frame["required"] = json!(["id", "event", "data"]);
        frame["properties"]["id"] = id;
    }
    frame
}

/// An event of a run over SSE; its schema is made from those of the events.
#[derive(ToSchema)]
pub struct RunFrame {
    #[expect(dead_code, reason = "brings the events' schemas along")]
    data: RunEvent,
}

/// A change of a session over SSE.
#[derive(ToSchema)]
pub struct ChangeFrame {
    #[expect(dead_code, reason = "brings the session's schema along")]
    data: Session,
}

/// No token, or one that is not valid.
#[derive(IntoResponses)]
#[response(status = 401)]
pub struct Unauthenticated(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The token's scope is too small, or the request comes from a page, or by a name, that the server doesn't know.
#[derive(IntoResponses)]
#[response(status = 403)]
pub struct Forbidden(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// Nothing matches what is named.
#[derive(IntoResponses)]
#[response(status = 404)]
pub struct NotFound(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// It can't be done as things stand: a run is going on, or the session is in the wrong state.
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Conflict(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The session has expired.
#[derive(IntoResponses)]
#[response(status = 410)]
pub struct Gone(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// More than the server takes.
#[derive(IntoResponses)]
#[response(status = 413)]
pub struct TooLarge(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The request is malformed, or asks for what makes no sense.
#[derive(IntoResponses)]
#[response(status = 422)]
pub struct Malformed(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// Too many requests: `Retry-After` says in how many seconds there may be another.
#[derive(IntoResponses)]
#[response(status = 429, headers(("Retry-After" = u64, description = "In seconds.")))]
pub struct TooOften(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The server failed; its log says why.
#[derive(IntoResponses)]
#[response(status = 500)]
pub struct Internal(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The server is going away, its store can't be written, or the machine refuses the sandbox.
#[derive(IntoResponses)]
#[response(status = 503)]
pub struct Unavailable(#[expect(dead_code, reason = "shows its schema")] ErrorBody);

/// The path of what is about one agent.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfAgent {
    /// The agent's ID or name.
    #[param(pattern = "^[a-z][a-z0-9_-]*$", max_length = 63)]
    #[expect(dead_code, reason = "shows its schema")]
    agent: String,
}

/// The path of what is about one session.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfSession {
    /// The session's ID. `ses_` may be left out, and dashes don't count.
    #[param(pattern = "^(ses_)?[0-9a-f]{32}$")]
    #[expect(dead_code, reason = "shows its schema")]
    id: String,
}

/// The parameters of `GET /sessions`.
pub struct Listing;

impl IntoParams for Listing {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        /// What the old clients call `agent`.
        #[derive(IntoParams)]
        #[into_params(parameter_in = Query)]
        struct Old {
            /// The same as `agent`, which goes before it.
            #[param(max_items = 100)]
            #[expect(dead_code, reason = "shows its schema")]
            agent_id: Option<Vec<String>>,
        }
        let mut all = SessionQuery::into_params(&place);
        all.extend(Old::into_params(place));
        all
    }
}

/// Those of them that are conditions.
pub struct Conditions;

impl IntoParams for Conditions {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut all = Listing::into_params(place);
        all.retain(|parameter| !["fields", "limit", "cursor", "order"].contains(&parameter.name.as_str()));
        all
    }
}

/// An answer with nothing in it.
#[derive(ToSchema)]
pub struct Empty {}

/// What `POST /agents` takes, a part each.
#[derive(ToSchema)]
pub struct DeployForm {
    /// The agent's code: a tar archive, gzipped; at most 256 MiB.
    #[schema(value_type = String, format = Binary)]
    #[expect(dead_code, reason = "shows its schema")]
    file: Vec<u8>,
    /// The agent's name. One that is there already gets a new revision.
    #[schema(pattern = "^[a-z][a-z0-9-]*$", max_length = 63)]
    #[expect(dead_code, reason = "shows its schema")]
    name: Option<String>,
    /// The command that starts it.
    #[expect(dead_code, reason = "shows its schema")]
    command: Option<String>,
    /// Its configuration, as JSON.
    #[expect(dead_code, reason = "shows its schema")]
    config: Option<AgentConfig>,
}

/// A page of sessions, whole or, with `fields`, only these.
pub struct ListedSessions;

impl PartialSchema for ListedSessions {
    fn schema() -> RefOr<Schema> {
        let whole = Ref::from_schema_name(SessionPage::name());
        let selected = Ref::from_schema_name(SelectedPage::name());
        Schema::AnyOf(AnyOfBuilder::new().item(whole).item(selected).build()).into()
    }
}

impl ToSchema for ListedSessions {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((SessionPage::name().into(), SessionPage::schema()));
        schemas.push((SelectedPage::name().into(), SelectedPage::schema()));
        SessionPage::schemas(schemas);
        SelectedPage::schemas(schemas);
    }
}
