// express-session with connect-redis.

import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

const client = createClient({ url: process.env.REDIS_URL });
await client.connect();

const app = express();
app.use(
  session({
    store: new RedisStore({ client }),
    secret: process.env.SECRET_KEY,
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 7 * 24 * 3600 * 1000, httpOnly: true, sameSite: "lax" },
  }),
);

app.post("/login", (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(request.session, { user: request.query.user, authenticated: true, theme: "dark", visits: 0 });
    response.json({ ok: true });
  });
});

app.get("/profile", (request, response) => {
  const { authenticated, user, visits } = request.session;
  if (!authenticated) return response.status(401).json({ error: "not logged in" });
  response.json({ user, visits });
});

app.get("/visit", (request, response) => {
  request.session.visits += 1;
  response.json({ visits: request.session.visits });
});

app.post("/logout", (request, response, next) => {
  request.session.destroy((error) => {
    if (error) return next(error);
    response.json({ ok: true });
  });
});

app.get("/none", (request, response) => {
  response.json({ ok: true });
});

app.listen(Number(process.env.PORT), "127.0.0.1");
