//! Every path, its methods, and what each asks of its caller: a route without a permission does not compile.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::gate::{self, Guard};
use crate::permission::Permission::{self, Administer, Nothing, ReadTraces, WriteOwn};
use crate::{Shared, ask, operations, prompts};

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
