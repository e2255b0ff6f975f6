//! Every path, its methods, and what each asks of its caller: a route without a permission and a contract does not compile.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use emberd_identity::Permission::{self, Administer, DeleteOwn, ReadEvaluations, ReadTraces, WriteOwn};

use crate::ask::Bound;
use crate::contract::Contract;
use crate::flags::Part;
use crate::gate::{self, Guard};
use crate::permission::{Asked, NOTHING};
use crate::{
    Shared, analytics, ask, auth, datasets, evaluations, graph, live, operations, prompts, proxy, rules, templates,
};

/// Phoenix's own API; what is asked there is asked by the way's own rules besides.
const PHOENIX: &str = "/api/phoenix/{*path}";

/// A route, for whoever must go over all of them.
#[derive(Clone, Debug)]
pub struct Route {
    /// HTTP's method.
    pub method: Method,
    /// With `{names}` for what varies.
    pub path: String,
    /// The permission that it asks for; none: nothing is asked.
    pub asked: Option<Permission>,
    /// Which part of the API it belongs to; none: it is always there.
    pub part: Option<Part>,
    /// Its name in the metrics.
    pub operation: &'static str,
    /// What it promises.
    pub(crate) contract: Contract,
}

/// The whole API, and the list of its routes.
pub(crate) fn router(shared: Arc<Shared>) -> (Router, Vec<Route>) {
    let Routes { router, listed, .. } = routes(&shared);
    let router = router
        .fallback(gate::unknown_path)
        .method_not_allowed_fallback(gate::unknown_method)
        .layer(DefaultBodyLimit::max(ask::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), gate::front))
        .with_state(shared);
    (router, listed)
}

fn routes(shared: &Arc<Shared>) -> Routes {
    let routes = Routes { shared: Arc::clone(shared), router: Router::new(), listed: Vec::new(), part: None };
    let routes = routes
        .get("/healthz", NOTHING, "healthz", operations::HEALTHZ, operations::healthz)
        .get("/readyz", NOTHING, "readyz", operations::READYZ, operations::readyz)
        .get("/openapi.json", ReadTraces, "openapi", operations::OPENAPI, operations::openapi)
        .get("/metrics", Administer, "metrics", operations::METRICS, operations::metrics)
        .get("/api/status", Administer, "status", operations::STATUS, operations::status)
        .get("/api/ledger", Administer, "ledger", operations::LEDGER, operations::ledger)
        .get("/api/phoenix/health", ReadTraces, "health", operations::HEALTH, operations::health)
        .get("/api/phoenix/stats", ReadTraces, "stats", operations::STATS, operations::stats)
        .get(PHOENIX, ReadTraces, "proxy", proxy::READ, proxy::pass)
        .post(PHOENIX, ReadTraces, "proxy", proxy::WRITE, proxy::pass)
        .put(PHOENIX, ReadTraces, "proxy", proxy::WRITE, proxy::pass)
        .patch(PHOENIX, ReadTraces, "proxy", proxy::WRITE, proxy::pass)
        .delete(PHOENIX, ReadTraces, "proxy", proxy::READ, proxy::pass)
        .get("/socket.io/", NOTHING, "socket", live::CONNECT, live::connect)
        .post("/graphql", ReadTraces, "graphql", graph::ASK, graph::ask)
        .post("/api/auth/phoenix", NOTHING, "login", auth::LOGIN, auth::login)
        .delete("/api/auth/phoenix", ReadTraces, "logout", auth::LOGOUT, auth::logout)
        .post("/api/analytics/events", ReadTraces, "events", analytics::POST, analytics::post)
        .get("/api/prompts", ReadTraces, "prompts", prompts::LIST, prompts::list)
        .post("/api/prompts", WriteOwn, "create_prompt", prompts::CREATE, prompts::create);
    let routes = routes
        .of(Part::Traces)
        .get(
            "/api/prompts/{id}/performance",
            ReadTraces,
            "prompt_performance",
            prompts::PERFORMANCE,
            prompts::performance,
        )
        .get("/api/prompts/{id}/traces", ReadTraces, "prompt_traces", prompts::TRACES, prompts::traces)
        .get("/api/traces/{trace}/decisions", ReadEvaluations, "decisions", rules::WHY, rules::why);
    routes
        .of(Part::Evaluations)
        .get(
            "/api/prompts/{id}/evaluations",
            ReadEvaluations,
            "prompt_evaluations",
            evaluations::OF_PROMPT,
            evaluations::of_prompt,
        )
        .get("/api/evaluators", ReadEvaluations, "evaluators", evaluations::EVALUATORS, evaluations::evaluators)
        .get("/api/evaluations", ReadEvaluations, "evaluations", evaluations::LIST, evaluations::list)
        .post("/api/evaluations", WriteOwn, "create_evaluation", evaluations::CREATE, evaluations::create)
        .post("/api/evaluations/quote", WriteOwn, "quote_evaluation", evaluations::QUOTE, evaluations::quote)
        .get("/api/evaluations/{id}", ReadEvaluations, "evaluation", evaluations::GET, evaluations::get)
        .patch("/api/evaluations/{id}", WriteOwn, "change_evaluation", evaluations::CHANGE, evaluations::change)
        .delete("/api/evaluations/{id}", DeleteOwn, "delete_evaluation", evaluations::DELETE, evaluations::delete)
        .post("/api/evaluations/{id}/cancel", WriteOwn, "cancel_evaluation", evaluations::CANCEL, evaluations::cancel)
        .post("/api/evaluations/{id}/retry", WriteOwn, "retry_evaluation", evaluations::RETRY, evaluations::retry)
        .get(
            "/api/evaluations/{id}/results",
            ReadEvaluations,
            "evaluation_results",
            evaluations::RESULTS,
            evaluations::results,
        )
        .get("/api/datasets", ReadEvaluations, "datasets", datasets::LIST, datasets::list)
        .upload("/api/datasets", WriteOwn, "create_dataset", datasets::CREATE, datasets::create)
        .upload("/api/datasets/upload", WriteOwn, "upload_dataset", datasets::UPLOAD, datasets::upload)
        .post(
            "/api/datasets/from-traces",
            WriteOwn,
            "dataset_from_traces",
            datasets::FROM_TRACES,
            datasets::from_traces,
        )
        .get("/api/datasets/{id}", ReadEvaluations, "dataset", datasets::GET, datasets::get)
        .patch("/api/datasets/{id}", WriteOwn, "change_dataset", datasets::CHANGE, datasets::change)
        .delete("/api/datasets/{id}", DeleteOwn, "delete_dataset", datasets::DELETE, datasets::delete)
        .get("/api/datasets/{id}/examples", ReadEvaluations, "dataset_examples", datasets::EXAMPLES, datasets::examples)
        .get("/api/datasets/{id}/export", ReadEvaluations, "export_dataset", datasets::EXPORT, datasets::export)
        .get("/api/evaluation-rules", ReadEvaluations, "rules", rules::LIST, rules::list)
        .post("/api/evaluation-rules", Administer, "put_rule", rules::PUT, rules::put)
        .patch("/api/evaluation-rules/{id}", Administer, "change_rule", rules::CHANGE, rules::change)
        .delete("/api/evaluation-rules/{id}", Administer, "delete_rule", rules::DELETE, rules::delete)
        .get("/api/evaluation-templates", ReadEvaluations, "templates", templates::LIST, templates::list)
        .post("/api/evaluation-templates", WriteOwn, "create_template", templates::CREATE, templates::create)
        .get("/api/evaluation-templates/{id}", ReadEvaluations, "template", templates::GET, templates::get)
        .patch("/api/evaluation-templates/{id}", WriteOwn, "change_template", templates::CHANGE, templates::change)
        .delete("/api/evaluation-templates/{id}", DeleteOwn, "delete_template", templates::DELETE, templates::delete)
}

/// Routes in the making. There is no way to add one but with a permission, and an operation's name for the metrics.
struct Routes {
    shared: Arc<Shared>,
    router: Router<Arc<Shared>>,
    listed: Vec<Route>,
    part: Option<Part>,
}

impl Routes {
    /// What follows belongs to this part.
    fn of(self, part: Part) -> Self {
        Self { part: Some(part), ..self }
    }

    fn get<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::GET, path, permission, operation, contract, handler)
    }

    fn post<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::POST, path, permission, operation, contract, handler)
    }

    fn put<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::PUT, path, permission, operation, contract, handler)
    }

    fn patch<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::PATCH, path, permission, operation, contract, handler)
    }

    fn delete<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::DELETE, path, permission, operation, contract, handler)
    }

    /// A POST whose body may be a whole dataset.
    fn upload<H, T>(
        self,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let large =
            handler.layer(Extension(Bound(ask::UPLOAD_BYTES_MAX))).layer(DefaultBodyLimit::max(ask::UPLOAD_BYTES_MAX));
        self.route(&Method::POST, path, permission, operation, contract, large)
    }

    fn route<H, T>(
        self,
        method: &Method,
        path: &str,
        permission: impl Into<Asked>,
        operation: &'static str,
        contract: Contract,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let Self { shared, router, mut listed, part } = self;
        let asked = permission.into();
        shared.meter.know(operation);
        listed.push(Route { method: method.clone(), path: path.to_owned(), asked, part, operation, contract });
        let filter = MethodFilter::try_from(method.clone()).expect("the methods above are HTTP's own");
        let guard = Guard { shared: shared.clone(), permission: asked, part, operation };
        let method: MethodRouter<Arc<Shared>> =
            on(filter, handler).route_layer(middleware::from_fn_with_state(guard, gate::guard));
        Self { shared, router: router.route(path, method), listed, part }
    }
}
