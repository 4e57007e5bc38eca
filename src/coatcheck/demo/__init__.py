"""The demo: a small web application that logs people in and remembers them on the server.

Run it with `coatcheck demo`. It needs the extra `coatcheck[demo]`; nothing else in Coatcheck imports it.

    app         the routes, and what each answers
    devices     the pages about where a user is logged in
    device_names    a User-Agent, for people
    live        the WebSocket that tells an open page of its session's end
    steps       every line that touches a session; the pages show them
    guard       who may see which page, and where to go after the login
    users       who there is
    preferences what can be chosen on the settings page
    requests    what a request asks for: forms, Accept
    pages       HTML out: templates, headers, error pages
    listing     Python source as HTML
    observed    what a request asked of the store
    state_folder, embedded_valkey, serve    running it
"""
