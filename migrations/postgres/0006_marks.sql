-- By what the next run knows its listings again, so that what came before need not be compared.

alter table project_state add column marks jsonb;
