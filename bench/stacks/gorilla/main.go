// The article's program: gorilla/sessions with redistore.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/boj/redistore"
	"github.com/gorilla/sessions"
)

const cookieName = "session"

type answer map[string]interface{}

var store *redistore.RediStore

func reply(w http.ResponseWriter, status int, body answer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// authenticated lets a request pass whose session is logged in, and hands the session on.
func authenticated(next func(http.ResponseWriter, *http.Request, *sessions.Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		session, err := store.Get(r, cookieName)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if in, ok := session.Values["authenticated"].(bool); !ok || !in {
			reply(w, http.StatusUnauthorized, answer{"error": "not logged in"})
			return
		}
		next(w, r, session)
	}
}

// save stores the session; it answers the request itself when that fails.
func save(w http.ResponseWriter, r *http.Request, session *sessions.Session) bool {
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return false
	}
	return true
}

func login(w http.ResponseWriter, r *http.Request) {
	session, err := store.Get(r, cookieName)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	session.Values["user"] = r.URL.Query().Get("user")
	session.Values["authenticated"] = true
	session.Values["theme"] = "dark"
	session.Values["visits"] = 0
	if save(w, r, session) {
		reply(w, http.StatusOK, answer{"ok": true})
	}
}

func profile(w http.ResponseWriter, _ *http.Request, session *sessions.Session) {
	reply(w, http.StatusOK, answer{"user": session.Values["user"], "visits": session.Values["visits"]})
}

func visit(w http.ResponseWriter, r *http.Request, session *sessions.Session) {
	visits := session.Values["visits"].(int) + 1
	session.Values["visits"] = visits
	if save(w, r, session) {
		reply(w, http.StatusOK, answer{"visits": visits})
	}
}

func logout(w http.ResponseWriter, r *http.Request, session *sessions.Session) {
	session.Options.MaxAge = -1
	if save(w, r, session) {
		reply(w, http.StatusOK, answer{"ok": true})
	}
}

func none(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, answer{"ok": true})
}

func main() {
	address := strings.TrimSuffix(strings.TrimPrefix(os.Getenv("REDIS_URL"), "redis://"), "/0")
	var err error
	store, err = redistore.NewRediStore(10, "tcp", address, "", []byte(os.Getenv("SECRET_KEY")))
	if err != nil {
		log.Fatal(err)
	}
	store.Options = &sessions.Options{Path: "/", MaxAge: 7 * 24 * 3600, HttpOnly: true}

	http.HandleFunc("/login", login)
	http.HandleFunc("/profile", authenticated(profile))
	http.HandleFunc("/visit", authenticated(visit))
	http.HandleFunc("/logout", authenticated(logout))
	http.HandleFunc("/none", none)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
