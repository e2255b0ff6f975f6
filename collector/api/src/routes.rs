//! Every path, its methods, and what each asks of its caller: a route without a permission does not compile.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};

use crate::ask::Bound;
use crate::gate::{self, Guard};
use crate::permission::Permission::{self, Administer, Nothing, ReadEvaluations, ReadTraces, WriteOwn};
use crate::{Shared, ask, datasets, evaluations, operations, prompts, rules, templates};

/// The whole API.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Routes { shared: shared.clone(), router: Router::new() };
    routes
        .get("/healthz", Nothing, "healthz", operations::healthz)
        .get("/readyz", Nothing, "readyz", operations::readyz)
        .get("/metrics", Administer, "metrics", operations::metrics)
        .get("/api/status", Administer, "status", operations::status)
        .get("/api/ledger", Administer, "ledger", operations::ledger)
        .get("/api/prompts", ReadTraces, "prompts", prompts::list)
        .post("/api/prompts", WriteOwn, "create_prompt", prompts::create)
        .get("/api/prompts/{id}/performance", ReadTraces, "prompt_performance", prompts::performance)
        .get("/api/prompts/{id}/traces", ReadTraces, "prompt_traces", prompts::traces)
        .get("/api/prompts/{id}/evaluations", ReadEvaluations, "prompt_evaluations", evaluations::of_prompt)
        .get("/api/evaluators", ReadEvaluations, "evaluators", evaluations::evaluators)
        .get("/api/evaluations", ReadEvaluations, "evaluations", evaluations::list)
        .post("/api/evaluations", WriteOwn, "create_evaluation", evaluations::create)
        .post("/api/evaluations/quote", WriteOwn, "quote_evaluation", evaluations::quote)
        .get("/api/evaluations/{id}", ReadEvaluations, "evaluation", evaluations::get)
        .patch("/api/evaluations/{id}", WriteOwn, "change_evaluation", evaluations::change)
        .delete("/api/evaluations/{id}", WriteOwn, "delete_evaluation", evaluations::delete)
        .post("/api/evaluations/{id}/cancel", WriteOwn, "cancel_evaluation", evaluations::cancel)
        .post("/api/evaluations/{id}/retry", WriteOwn, "retry_evaluation", evaluations::retry)
        .get("/api/evaluations/{id}/results", ReadEvaluations, "evaluation_results", evaluations::results)
        .get("/api/datasets", ReadEvaluations, "datasets", datasets::list)
        .upload("/api/datasets", WriteOwn, "create_dataset", datasets::create)
        .upload("/api/datasets/upload", WriteOwn, "upload_dataset", datasets::upload)
        .post("/api/datasets/from-traces", WriteOwn, "dataset_from_traces", datasets::from_traces)
        .get("/api/datasets/{id}", ReadEvaluations, "dataset", datasets::get)
        .patch("/api/datasets/{id}", WriteOwn, "change_dataset", datasets::change)
        .delete("/api/datasets/{id}", WriteOwn, "delete_dataset", datasets::delete)
        .get("/api/datasets/{id}/examples", ReadEvaluations, "dataset_examples", datasets::examples)
        .get("/api/datasets/{id}/export", ReadEvaluations, "export_dataset", datasets::export)
        .get("/api/evaluation-rules", ReadEvaluations, "rules", rules::list)
        .post("/api/evaluation-rules", Administer, "put_rule", rules::put)
        .patch("/api/evaluation-rules/{id}", Administer, "change_rule", rules::change)
        .delete("/api/evaluation-rules/{id}", Administer, "delete_rule", rules::delete)
        .get("/api/traces/{trace}/decisions", ReadEvaluations, "decisions", rules::why)
        .get("/api/evaluation-templates", ReadEvaluations, "templates", templates::list)
        .post("/api/evaluation-templates", WriteOwn, "create_template", templates::create)
        .get("/api/evaluation-templates/{id}", ReadEvaluations, "template", templates::get)
        .patch("/api/evaluation-templates/{id}", WriteOwn, "change_template", templates::change)
        .delete("/api/evaluation-templates/{id}", WriteOwn, "delete_template", templates::delete)
        .router
        .fallback(gate::unknown_path)
        .method_not_allowed_fallback(gate::unknown_method)
        .layer(DefaultBodyLimit::max(ask::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), gate::front))
        .with_state(shared)
}

/// Routes in the making. There is no way to add one but with a permission, and an operation's name for the metrics.
struct Routes {
    shared: Arc<Shared>,
    router: Router<Arc<Shared>>,
}

impl Routes {
    fn get<H, T>(self, path: &str, permission: Permission, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::GET, path, permission, operation, handler)
    }

    fn post<H, T>(self, path: &str, permission: Permission, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::POST, path, permission, operation, handler)
    }

    fn patch<H, T>(self, path: &str, permission: Permission, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::PATCH, path, permission, operation, handler)
    }

    fn delete<H, T>(self, path: &str, permission: Permission, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        self.route(&Method::DELETE, path, permission, operation, handler)
    }

    /// A POST whose body may be a whole dataset.
    fn upload<H, T>(self, path: &str, permission: Permission, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let large =
            handler.layer(Extension(Bound(ask::UPLOAD_BYTES_MAX))).layer(DefaultBodyLimit::max(ask::UPLOAD_BYTES_MAX));
        self.route(&Method::POST, path, permission, operation, large)
    }

    fn route<H, T>(
        self,
        method: &Method,
        path: &str,
        permission: Permission,
        operation: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let Self { shared, router } = self;
        shared.meter.know(operation);
        let filter = MethodFilter::try_from(method.clone()).expect("the methods above are HTTP's own");
        let guard = Guard { shared: shared.clone(), permission, operation };
        let method: MethodRouter<Arc<Shared>> =
            on(filter, handler).route_layer(middleware::from_fn_with_state(guard, gate::guard));
        Self { shared, router: router.route(path, method) }
    }
}
