DO $$
BEGIN
    IF to_regrole('authenticated') IS NOT NULL THEN
        REVOKE USAGE ON SCHEMA emberd FROM authenticated;
    END IF;
END
$$;
DROP TRIGGER emberd_forget_prompts ON public.prompts;
DROP FUNCTION emberd.forget_prompts();
DROP VIEW public.prompt_performance_summary;
DROP TABLE emberd.totals;
DROP TABLE emberd.published;
DROP TABLE emberd.dirty;
DROP TABLE emberd.rollups;
DROP TABLE emberd.trace_state;
DROP TABLE emberd.cursors;
