//! The private door's paths. Each [`Endpoint`] says what it answers to, and the description that clients read
//! (`OpenAPI`) is made from just that, so that it cannot be about something else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::gate::Gate;
use super::server::Service;
use crate::telemetry::audit_log::{Caller, Event, Journal};

/// One path and what it answers to.
pub trait Endpoint: Send + Sync {
    /// The path, matched whole.
    fn path(&self) -> &'static str;

    /// What can be done there: one operation a method.
    fn operations(&self) -> Vec<Operation>;

    /// Does it. The method is one of [`Self::operations`].
    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c>;
}

/// An answer that may take a while.
pub type Reply<'c> = Pin<Box<dyn Future<Output = Answer> + Send + 'c>>;

/// What was asked, whole and within bounds.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The parameters of the query; each is one that the operation has, and there once.
    pub query: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// Who asked.
    pub caller: Caller,
}

/// What a method does.
#[derive(Debug)]
pub struct Operation {
    method: Method,
    summary: &'static str,
    parameters: Vec<Parameter>,
    body: Option<Described>,
    answers: Vec<(StatusCode, &'static str, Described)>,
}

/// A parameter of a query. None is required.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Whether it is a whole number.
    pub is_number: bool,
}

type Described = (&'static str, fn(&mut SchemaGenerator) -> Value);

impl Operation {
    /// Reads something: answers 200 with this.
    pub fn get<T: JsonSchema>(summary: &'static str) -> Self {
        Self::new(Method::GET, summary).answers::<T>(StatusCode::OK, "As asked.")
    }

    /// A method without answers yet.
    pub fn new(method: Method, summary: &'static str) -> Self {
        Self { method, summary, parameters: Vec::new(), body: None, answers: Vec::new() }
    }

    /// Answers with this value as JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(mut self, status: StatusCode, when: &'static str) -> Self {
        self.answers.push((status, when, ("application/json", schema_of::<T>)));
        self
    }

    /// Answers with text of this media type.
    #[must_use]
    pub fn answers_text(mut self, status: StatusCode, when: &'static str, media_type: &'static str) -> Self {
        self.answers.push((status, when, (media_type, |_| json!({ "type": "string" }))));
        self
    }

    /// May refuse with this status and a problem document, beside 401 and 403.
    #[must_use]
    pub fn refuses(mut self, status: StatusCode, when: &'static str) -> Self {
        self.answers.push((status, when, ("application/problem+json", problem_schema)));
        self
    }

    /// Takes this value as its body, in JSON.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(("application/json", schema_of::<T>));
        self.refuses(StatusCode::BAD_REQUEST, "The body is not as described.")
    }

    /// Takes this parameter.
    #[must_use]
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        let mut answers = Map::new();
        let mut put = |status: StatusCode, when: &str, (media_type, schema): Described| {
            let schema = schema(generator);
            let content = json!({ "description": when, "content": { media_type: { "schema": schema } } });
            answers.insert(status.as_u16().to_string(), content);
        };
        for (status, when, described) in &self.answers {
            put(*status, when, *described);
        }
        let problem: Described = ("application/problem+json", problem_schema);
        put(StatusCode::BAD_REQUEST, "A parameter or the body is not as described.", problem);
        put(StatusCode::UNAUTHORIZED, "The token of admin.token is missing or wrong.", problem);
        put(StatusCode::FORBIDDEN, "A web page asked, or for a name that is not this host's own.", problem);
        let mut operation = Map::new();
        operation.insert("summary".to_owned(), self.summary.into());
        operation.insert("responses".to_owned(), Value::Object(answers));
        if !self.parameters.is_empty() {
            let parameters = self.parameters.iter().map(Parameter::describe).collect();
            operation.insert("parameters".to_owned(), parameters);
        }
        if let Some((media_type, schema)) = self.body {
            let schema = schema(generator);
            let body = json!({ "required": true, "content": { media_type: { "schema": schema } } });
            operation.insert("requestBody".to_owned(), body);
        }
        Value::Object(operation)
    }
}

impl Parameter {
    fn describe(&self) -> Value {
        let schema = if self.is_number {
            json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })
        } else {
            json!({ "type": "string", "minLength": 1 })
        };
        json!({ "name": self.name, "in": "query", "description": self.description, "schema": schema })
    }

    fn is_met(&self, value: &str) -> bool {
        let number =
            || value.bytes().all(|byte| byte.is_ascii_digit()) && value.parse::<u32>().is_ok_and(|n| n > 0);
        !value.is_empty() && (!self.is_number || number())
    }
}

/// All endpoints, behind the gate.
#[derive(Clone)]
pub struct Router {
    gate: Gate,
    endpoints: Arc<Vec<Box<dyn Endpoint>>>,
    description: Bytes,
    journal: Journal,
}

impl Router {
    /// The router of these endpoints, no two of which have one path, and of their description at `/openapi.json`. Calls
    /// are noted in the journal.
    pub fn new(gate: Gate, endpoints: Vec<Box<dyn Endpoint>>, journal: Journal) -> Self {
        let description = format!("{:#}\n", describe(&endpoints)).into();
        Self { gate, endpoints: Arc::new(endpoints), description, journal }
    }

    async fn route(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let (head, body) = request.into_parts();
        if let Some(refusal) = self.gate.refusal(&head.headers) {
            return refusal;
        }
        let path = head.uri.path();
        if path == DESCRIPTION {
            return match head.method {
                Method::GET | Method::HEAD => {
                    answer::of(StatusCode::OK, "application/json", self.description.clone())
                }
                _ => answer::method_not_allowed("GET, HEAD"),
            };
        }
        let Some(endpoint) = self.endpoints.iter().find(|endpoint| endpoint.path() == path) else {
            let detail = format!("There is no such path; {DESCRIPTION} lists those that there are.");
            return answer::problem(StatusCode::NOT_FOUND, &detail);
        };
        let operations = endpoint.operations();
        // HEAD is GET without the body, which hyper leaves out.
        let method = if head.method == Method::HEAD { Method::GET } else { head.method };
        let Some(operation) = operations.iter().find(|operation| operation.method == method) else {
            return answer::method_not_allowed(&methods(&operations));
        };
        let query = match parameters(head.uri.query().unwrap_or_default(), &operation.parameters) {
            Ok(query) => query,
            Err(detail) => return answer::problem(StatusCode::BAD_REQUEST, &detail),
        };
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            let detail = format!("The body is larger than {MAX_BODY} bytes, or it broke off.");
            return answer::problem(StatusCode::BAD_REQUEST, &detail);
        };
        // Whoever got past the gate showed the token that it demands.
        let caller = Caller { has_token: self.gate.demands_token(), ..caller.clone() };
        endpoint.answer(&Call { method, query, body: body.to_bytes(), caller }).await
    }
}

impl Service for Router {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let answer = self.route(request, &caller).await;
        caller.has_token = self.gate.demands_token() && answer.status() != StatusCode::UNAUTHORIZED;
        let is_routine = answer.status() == StatusCode::OK && ROUTINE.contains(&path.as_str());
        if !is_routine {
            let (method, path, status) = (method.as_str(), path.as_str(), answer.status().as_u16());
            self.journal.note(Event::AdminCalled { method, path, status, caller: &caller });
        }
        answer
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.endpoints.iter().map(|endpoint| endpoint.path())).finish()
    }
}

/// The parameters of a query, or what is wrong with it: an unknown one is more likely a slip than a wish to be
/// ignored.
fn parameters(query: &str, known: &[Parameter]) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let parameter = known
            .iter()
            .find(|parameter| parameter.name == name)
            .ok_or_else(|| format!("There is no parameter '{}'.", name.escape_debug()))?;
        if !parameter.is_met(&value) {
            let wanted = if parameter.is_number { "a whole number, at least 1" } else { "not empty" };
            return Err(format!("The parameter '{name}' must be {wanted}."));
        }
        if found.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(format!("The parameter '{}' is given twice.", parameter.name));
        }
    }
    Ok(found)
}

fn methods(operations: &[Operation]) -> String {
    let mut methods = String::new();
    for operation in operations {
        let separator = if methods.is_empty() { "" } else { ", " };
        let _ = write!(methods, "{separator}{}", operation.method);
        if operation.method == Method::GET {
            methods.push_str(", HEAD");
        }
    }
    methods
}

fn describe(endpoints: &[Box<dyn Endpoint>]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let operations = endpoint.operations();
        let described = operations.iter().map(|operation| {
            (operation.method.as_str().to_ascii_lowercase(), operation.describe(&mut generator))
        });
        paths.insert(endpoint.path().to_owned(), Value::Object(described.collect()));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "valgate admin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a running gateway tells and lets be done. See docs/admin.md.",
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn problem_schema(_: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": {
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What is wrong, and what would be right." },
        },
    })
}

/// What machines ask for all day long: no line for it unless it is refused.
const ROUTINE: [&str; 3] = ["/metrics", "/livez", "/readyz"];

const DESCRIPTION: &str = "/openapi.json";

/// The largest body that is read. A thousand revocations fit.
const MAX_BODY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::{Parameter, parameters};

    #[test]
    fn a_query_has_known_parameters_once_and_of_their_kind() {
        let known = [
            Parameter { name: "limit", description: "", is_number: true },
            Parameter { name: "token", description: "", is_number: false },
        ];
        let good = parameters("limit=7&token=a%20b", &known).unwrap();
        assert_eq!((good["limit"].as_str(), good["token"].as_str()), ("7", "a b"));
        assert!(parameters("", &known).unwrap().is_empty());
        for bad in
            ["limit=0", "limit=x", "limit=-1", "limit=+1", "token=", "other=1", "limit=1&limit=1", "limit"]
        {
            assert!(parameters(bad, &known).is_err(), "{bad}");
        }
    }
}
