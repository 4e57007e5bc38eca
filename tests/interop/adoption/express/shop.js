// An old application: Express, express-session, connect-redis. It says where it listens on standard output.
//
//   node shop.js REDIS_URL SECRETS MAX_AGE_MS     secrets separated by commas, newest first; "" for no age

import express from "express";
import session from "express-session";
import { RedisStore } from "connect-redis";
import { createClient } from "redis";

const [url, secrets, maxAge] = process.argv.slice(2);
const client = await createClient({ url }).connect();
const app = express();
app.use(
  session({
    store: new RedisStore({ client }),
    secret: secrets.split(","),
    resave: false,
    saveUninitialized: false,
    cookie: maxAge ? { maxAge: Number(maxAge) } : {},
  }),
);
app.get("/login", (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(request.session, { userId: 7, name: "Zoë", cart: ["hat", { size: 7 }], price: 1.5, nothing: null });
    response.send("hello");
  });
});
app.get("/whoami", (request, response) => response.send(String(request.session.userId)));
app.get("/logout", (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.send("bye")));
});
const server = app.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
